"""The page of settings: key, type, default, environment variable and meaning, from the settings models."""

import os
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from unittest.mock import patch

import annotated_types
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from p2pmodel.config import sources
from p2pmodel.config.complaints import variable_of
from p2pmodel.config.sections.daemon import FollowSettings
from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.config.sections.trust import AccessRule, ContentRule, TrustRule
from p2pmodel.config.settings import Settings
from scripts.documentation.docstrings import meanings
from scripts.documentation.markdown import code, flat, page, table

DERIVED = {"origin.state_dir"}
"""Keys that follow another setting and are not for users."""

_INTRO = """\
Sources, each overriding the one before: defaults, `p2pmodel.toml`, environment variables, command line flags. The file
is `--config FILE`, else `P2PMODEL_CONFIG`, else `~/.config/p2pmodel/p2pmodel.toml`; it belongs to you or to root, and
others cannot change it, and relative paths in it are relative to it. A key with a dot belongs to a table:
`swarm.listen` is `listen` in `[swarm]`. Sizes are in bytes, rates in bytes/s, times in seconds. Of two variables of one
key the first counts."""
_MIRRORS = "Keys of each `[[mirrors]]` table in the file. Priority decides which mirror is asked first."
_RULES = "Keys of each `[[trust.rules]]` table in the file. See [trust](../trust.md)."
_EXAMPLE = """\
```toml
coordinators = ["http://10.0.0.1:6969"]

[[mirrors]]
name = "self-built"
endpoint = "https://10.0.0.2:8090/hf"
priority = 1
token_env = "P2PMODEL_SELF_BUILT_TOKEN"
max_bytes_per_second = 50000000

[[mirrors]]
name = "official"
endpoint = "https://huggingface.co"
priority = 2

[swarm]
listen = "10.0.0.7:6881"

[daemon]
upload_schedule = ["mon-fri 08:00-18:00=20MB", "sat,sun 00:00-24:00=0"]

[[follow]]
repo = "Qwen/Qwen3-VL-8B-Instruct"
window = "22:00-06:00"
zone = "Asia/Shanghai"
```"""
_OTHERS = {
    "P2PMODEL_CONFIG": "Settings file.",
    "P2PMODEL_CLUSTER_CONFIG": "Second settings file, which replaces what the first one has; `bootstrap` sets it.",
    "P2PMODEL_PATH": "The snapshot, for the command of `fetch --exec`; set by p2pmodel.",
    "P2PMODEL_DEBUG": "1: show the traceback of an internal error.",
    "P2PMODEL_ENDPOINTS": "URLs or names of mirrors in the order of use, comma separated; replaces the file's list.",
    "HF_ENDPOINT": "URL of the mirror, or several with commas between them, if the file has none.",
    "P2PMODEL_ENDPOINT_LIST": "Set by p2pmodel itself where `HF_ENDPOINT` is a list, which other programs refuse.",
    "HUGGINGFACE_HUB_CACHE": "Old name of `HF_HUB_CACHE`, used where that is not set.",
    "TRANSFORMERS_CACHE": "Another old name; used where `HF_HOME` is not set either.",
    "HF_MIRROR_PRIORITY": "Names or URLs of mirrors, comma separated: use these, in this order.",
    "HF_TOKEN": "Token for the official hub and for `HF_ENDPOINT`; sent to no other mirror.",
    "HF_TOKEN_PATH": "File with that token, if `HF_TOKEN` is not set (`HF_HOME/token`).",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1: do not read that file.",
    "HF_HOME": "Folder of the hub cache and the token (`XDG_CACHE_HOME/huggingface`).",
    "HF_HUB_DISABLE_UPDATE_CHECK": "Set by `p2pmodel env` for clients: `hf` would ask PyPI for newer versions.",
    "HF_HUB_DISABLE_XET": "Set by `p2pmodel env` for clients: Xet bypasses the endpoint.",
    "HF_HUB_DOWNLOAD_TIMEOUT": "Set by `p2pmodel env` for clients: the next piece of a file may take a while.",
    "XDG_CACHE_HOME": "Default folder of `HF_HOME` (`~/.cache`).",
    "XDG_STATE_HOME": "Default folder of `state_dir` (`~/.local/state`).",
    "XDG_RUNTIME_DIR": "Folder of the default `daemon.socket`.",
}
"""Environment variables that set no key by themselves."""
_OF_OTHER_PROGRAMS = {
    "cache_dir": ["HF_HUB_CACHE"],
    "offline": ["HF_HUB_OFFLINE"],
    "progress": ["HF_HUB_DISABLE_PROGRESS_BARS"],
    "origin.http_proxy": ["HTTP_PROXY", "ALL_PROXY"],
    "origin.https_proxy": ["HTTPS_PROXY", "ALL_PROXY"],
    "origin.no_proxy": ["NO_PROXY"],
}
"""The variables of other programs that set a key."""

_HOME = "/home/user"
_HEADER = ("key", "type", "default", "environment", "meaning")


MODELS = (Settings, MirrorSettings, FollowSettings, TrustRule, AccessRule, ContentRule)
"""The models with keys."""
_LINKS = {
    MirrorSettings: "[mirrors](#mirrors)",
    FollowSettings: "[follow lists](#follow-lists)",
    TrustRule: "[trust rules](#trust-rules)",
    AccessRule: "[access rules](#access-rules)",
    ContentRule: "[content rules](#content-rules)",
}


def text() -> str:
    """The page."""
    others = [(code(name), _OTHERS[name]) for name in sorted(_OTHERS)]
    return page(
        "Settings",
        flat(_INTRO),
        _EXAMPLE,
        table(_HEADER, _rows()),
        "## Mirrors",
        _MIRRORS,
        _keys_table(MirrorSettings),
        "## Follow lists",
        "Keys of each `[[follow]]` table in the file. See [the daemon](../daemon.md#follow-lists).",
        _keys_table(FollowSettings),
        "## Trust rules",
        _RULES,
        _keys_table(TrustRule),
        "## Access rules",
        "Keys of each `[[access.rules]]` table in the file. See [access](../access.md).",
        _keys_table(AccessRule),
        "## Content rules",
        "Keys of each `[[contents.rules]]` table in the file. See [access](../access.md#contents).",
        _keys_table(ContentRule),
        "## Other environment variables",
        table(("variable", "meaning"), others),
    )


def all_keys() -> list[tuple[str, FieldInfo, str]]:
    """Every key, those of mirrors too, with its field and its meaning."""
    return [each for model in MODELS for each in _keys(model) if each[0] not in DERIVED]


def variables_of(key: str) -> list[str]:
    """The environment variables that set `key`."""
    return [*([] if key == "mirrors" else [variable_of(key)]), *_OF_OTHER_PROGRAMS.get(key, [])]


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo, str]]:
    said = meanings(model)
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _keys(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, field, field.description or said.get(name, "")


def _keys_table(model: type[BaseModel]) -> str:
    rows = [(code(key), _type(field), _default(field), meaning) for key, field, meaning in _keys(model)]
    return table(("key", "type", "default", "meaning"), rows)


def _rows() -> Iterator[tuple[str, ...]]:
    """The keys of Settings, with the defaults of a user without any settings."""
    with patch.dict(os.environ, {"HOME": _HOME}, clear=True):
        loaded = sources.load_settings()
    for key, field, meaning in _keys(Settings):
        if key not in DERIVED:
            value: Any = loaded
            for name in key.split("."):
                value = getattr(value, name)
            yield code(key), _type(field), _shown(value), ", ".join(map(code, variables_of(key))), meaning


def _default(field: FieldInfo) -> str:
    return "required" if field.is_required() else _shown(field.get_default(call_default_factory=True))


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(_shown(each) for each in value) or "none"
    if isinstance(value, MirrorSettings):
        return code(value.endpoint)
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, float):
        return code(f"{value:g}")
    return "none" if value in (None, "") else code(str(value).replace(_HOME, "~"))


def _type(field: FieldInfo) -> str:
    return ", ".join(filter(None, [_name(field.annotation), *map(_bound, field.metadata)]))


def _name(kind: Any) -> str:
    arguments = [each for each in get_args(kind) if each not in (type(None), Ellipsis)]
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(map(_name, arguments))
    if get_origin(kind) is Annotated:
        bounds = (each for part in kind.__metadata__ if isinstance(part, FieldInfo) for each in part.metadata)
        return ", ".join(filter(None, [_name(kind.__origin__), *map(_bound, bounds)]))
    if get_origin(kind) is Literal:
        return " or ".join(code(str(each)) for each in arguments)
    if get_origin(kind) in (tuple, list):
        return f"list of {_name(arguments[0])}"
    if kind in _LINKS:
        return _LINKS[kind]
    simple = {Path: "path", str: "text", SecretStr: "secret", float: "number", int: "integer", bool: "true or false"}
    return simple.get(kind, getattr(kind, "__name__", str(kind)))


def _bound(constraint: object) -> str:
    match constraint:
        case annotated_types.Ge(ge=value):
            return f">= {value}"
        case annotated_types.Gt(gt=value):
            return f"> {value}"
        case annotated_types.Le(le=value):
            return f"<= {value}"
        case annotated_types.Lt(lt=value):
            return f"< {value}"
    return ""
