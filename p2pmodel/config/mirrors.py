"""The list of mirrors, in the order they are asked, with the token of each, and the public mirrors by name.

HF_ENDPOINT and HF_MIRROR_PRIORITY select and order it; HF_TOKEN and HF_HOME hold the hub's token.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from p2pmodel.config.checks import check_url
from p2pmodel.config.sections.mirrors import OFFICIAL_ENDPOINT
from p2pmodel.config.sections.section import split_list
from p2pmodel.core.content.names import printable
from p2pmodel.core.files.home import expanded, home
from p2pmodel.core.files.own_files import named, read_own, read_secret
from p2pmodel.core.network.tokens import plain_password, plain_token
from p2pmodel.core.network.urls import shown
from p2pmodel.errors import InvalidInput

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "official": {"endpoint": OFFICIAL_ENDPOINT},
    "hf-mirror": {"endpoint": "https://hf-mirror.com"},
    "gitcode": {"endpoint": "https://hf-api.gitcode.com"},
    "modelscope": {"endpoint": "https://modelscope.cn", "kind": "modelscope"},
}
"""What each preset sets; a table may set more, or other values."""


def with_presets(table: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tables of a settings file with what their presets set. Raises InvalidInput for an unknown preset."""
    return [_filled(mirror) if mirror.get("preset") is not None else mirror for mirror in table]


def preset(name: str) -> dict[str, Any]:
    """The table of the preset `name`."""
    return {"name": name, "preset": name, **PRESETS[name]}


def _filled(mirror: dict[str, Any]) -> dict[str, Any]:
    name = mirror["preset"]
    if not isinstance(name, str) or name not in PRESETS:
        raise InvalidInput(
            f"setting mirrors: there is no preset '{printable(str(name), 40)}'", hint=f"presets: {', '.join(PRESETS)}"
        )
    return preset(name) | mirror


TRUE = {"1", "ON", "YES", "TRUE"}
"""How the variables of the Hugging Face clients say yes."""

ENDPOINT_LIST = "P2PMODEL_ENDPOINT_LIST"
"""The variable that keeps a list of HF_ENDPOINT."""

_HINT = "see docs/mirrors.md"
_TOKEN_VARIABLE = re.compile(r"P2PMODEL_\w+_TOKEN|HF_\w+")
"""The variables that `token_env` may name."""


def mirrors_in_order(listed: Any, endpoints: Sequence[str], *, final: bool) -> list[dict[str, Any]]:
    """The mirrors as plain tables, first the one that is asked first.

    `listed` are the tables of the settings file, which `endpoints` (URLs, names or presets) replace. Without either
    they are those of HF_ENDPOINT, else the official hub. HF_MIRROR_PRIORITY picks and orders by name or URL, unless the
    `endpoints` are `final`. Raises InvalidInput.
    """
    table = listed if listed is not None else []
    if not isinstance(table, Sequence) or not all(isinstance(mirror, dict) for mirror in table):
        raise InvalidInput("setting mirrors: expected [[mirrors]] tables", hint=_HINT)
    table = with_presets(table)
    # Checked even where it is not used: huggingface_hub reads it too, and its error says less.
    of_environment = hub_endpoints()
    if endpoints:
        table = [_mirror_of(table, url) | {"priority": 0} for url in endpoints]
    elif not table:
        table = [_mirror_of([], url) for url in of_environment] or [{"name": "official", "endpoint": OFFICIAL_ENDPOINT}]
    priority = os.environ.get("HF_MIRROR_PRIORITY")
    if priority and not final:
        wanted = split_list(priority, ",")
        table = [_mirror_of(table, entry) | {"priority": rank} for rank, entry in enumerate(wanted)]
    ordered = sorted((dict(m) for m in table), key=lambda m: m["priority"] if _is_int(m.get("priority")) else 0)
    for mirror in ordered:
        _attach_token(mirror)
    return ordered


def user_home() -> Path:
    """HOME, as it is set now."""
    return Path(os.environ["HOME"]) if os.environ.get("HOME") else home()


def hf_home() -> Path:
    """The folder of the Hugging Face clients: HF_HOME, else `huggingface` in XDG_CACHE_HOME or ~/.cache."""
    if os.environ.get("HF_HOME"):
        return expanded(Path(os.environ["HF_HOME"]))
    return Path(os.environ.get("XDG_CACHE_HOME") or user_home() / ".cache") / "huggingface"


def hub_endpoints() -> tuple[str, ...]:
    """The URLs of HF_ENDPOINT, in the order to ask them. Raises InvalidInput."""
    first, kept = os.environ.get("HF_ENDPOINT", ""), split_list(os.environ.get(ENDPOINT_LIST, ""), ",")
    urls = kept if first and kept[:1] == (first,) else split_list(first, ",")
    try:
        return tuple(dict.fromkeys(map(check_url, urls)))
    except ValueError as error:
        raise InvalidInput(f"HF_ENDPOINT: {error}") from None


def keep_one_endpoint() -> None:
    """Leave the first URL of a list in HF_ENDPOINT, and keep the list for this program.

    The Hugging Face libraries, which this process and those that it starts import, refuse a list.
    """
    urls = split_list(os.environ.get("HF_ENDPOINT", ""), ",")
    if len(urls) > 1:
        os.environ["HF_ENDPOINT"], os.environ[ENDPOINT_LIST] = urls[0], ",".join(urls)


def _mirror_of(table: Sequence[dict[str, Any]], entry: str) -> dict[str, Any]:
    for mirror in table:
        if entry in (mirror.get("name"), str(mirror.get("endpoint")).rstrip("/"), mirror.get("endpoint")):
            return mirror
    for name, table_of_preset in PRESETS.items():
        if entry.rstrip("/") in (name, table_of_preset["endpoint"]):
            return preset(name)
    if "://" not in entry:
        names = ", ".join(dict.fromkeys([*(str(m.get("name")) for m in table), *PRESETS]))
        raise InvalidInput(f"mirror '{printable(entry)}' is neither a URL nor the name of one ({names})", hint=_HINT)
    try:
        name = urlsplit(entry).netloc.rpartition("@")[2]
    except ValueError:
        raise InvalidInput(f"mirror '{shown(entry)}' is not a URL", hint=_HINT) from None
    return {"name": name, "endpoint": entry}


def _attach_token(mirror: dict[str, Any]) -> None:
    """A mirror's own `token_env` or `token_file`. HF_TOKEN (or the hub's token file) goes to the official hub and to
    HF_ENDPOINT alone: a user cannot have meant it for another mirror."""
    endpoint = str(mirror.get("endpoint", "")).rstrip("/")
    token: str | None = None
    if isinstance(mirror.get("token"), str):
        token = _checked(mirror, mirror["token"], f"setting mirrors: the token of {printable(str(mirror.get('name')))}")
    elif mirror.get("token_env"):
        variable = _token_variable(str(mirror["token_env"]))
        if variable in os.environ:
            token = _checked(mirror, os.environ[variable], f"the environment variable {variable} (token_env)")
    elif mirror.get("token_file"):
        token = _checked(mirror, *read_secret(Path(str(mirror["token_file"]))))
    elif endpoint in (OFFICIAL_ENDPOINT, *hub_endpoints()):
        token = _hub_token()
    if token:
        mirror["token"] = token


def _checked(mirror: dict[str, Any], text: str, place: str) -> str:
    """The token in `text`, or the password of a mirror with a user name."""
    return plain_password(text, place) if mirror.get("username") else plain_token(text, place)


def _hub_token() -> str | None:
    if os.environ.get("HF_TOKEN"):
        return plain_token(os.environ["HF_TOKEN"], "the environment variable HF_TOKEN")
    if os.environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() in TRUE:
        return None
    path = Path(os.environ["HF_TOKEN_PATH"]) if os.environ.get("HF_TOKEN_PATH") else hf_home() / "token"
    # `hf auth login` writes it with the user's umask: its mode is that program's business, its owner is not.
    if not os.access(path, os.R_OK):
        return None
    try:
        text = read_own(path, "token file")
        return plain_token(text, named(path)) if text.strip() else None
    except InvalidInput as error:
        raise InvalidInput(error.what, hint=f"{error.hint}, or set HF_HUB_DISABLE_IMPLICIT_TOKEN=1") from None


def _token_variable(name: str) -> str:
    """`name` if it is meant for tokens of mirrors: a settings file from elsewhere must not name other secrets."""
    if not _TOKEN_VARIABLE.fullmatch(name):
        raise InvalidInput(
            f"setting mirrors: token_env '{printable(name)}' is not the name of a mirror's token",
            hint="name it P2PMODEL_..._TOKEN or HF_..., as in P2PMODEL_NEAR_TOKEN",
        )
    return name


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
