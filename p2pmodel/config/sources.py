"""Where settings come from: p2pmodel.toml < environment (P2PMODEL_*, HF_*) < flags, read once.

The environment names are documented in README.md; a test holds the two together.
"""

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from p2pmodel.config.settings import OFFICIAL_ENDPOINT, Settings, check_url
from p2pmodel.core.names import printable
from p2pmodel.errors import InvalidInput


def load_settings(
    environ: Mapping[str, str] | None = None, *, config: Path | None = None, flags: Mapping[str, Any] | None = None
) -> Settings:
    """Read the settings of this run.

    `config` is the `--config` flag; without it P2PMODEL_CONFIG, then ./p2pmodel.toml, then
    ~/.config/p2pmodel/p2pmodel.toml, each only if it exists. `flags` uses the names of Settings, nested with dots
    (`swarm.listen`); None values are flags that were not given. Raises InvalidInput naming the key at fault.
    """
    env = os.environ if environ is None else environ
    values = _read_toml(env, config)
    _apply_environment(values, env)
    for key, value in (flags or {}).items():
        if value is not None:
            _set(values, key, value)
    values.setdefault("cache_dir", _default_cache(env))
    values.setdefault("state_dir", _default_state(env))
    _set(values, "origin.state_dir", values["state_dir"])
    daemon = values.get("daemon")
    if not isinstance(daemon, dict) or "socket" not in daemon:
        _set(values, "daemon.socket", _default_socket(env, Path(values["state_dir"])))
    endpoints = values.pop("endpoints", None)
    values["mirrors"] = _mirrors(values.get("mirrors"), env, endpoints)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise _invalid(error) from None


_HINT = "see 'Settings' in README.md"
_MEANINGS = {
    "extra_forbidden": "there is no such setting",
    "model_type": "expected a table",
    "missing": "it is missing",
}


def _invalid(error: ValidationError) -> InvalidInput:
    """The first of pydantic's complaints as one line of ours."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    names = [name for name, place in _ENVIRONMENT.items() if place == key]
    said = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    meaning = _MEANINGS.get(first["type"], said)
    return InvalidInput(f"setting {' or '.join([key, *names])}: {meaning}", hint=_HINT)


def _read_toml(env: Mapping[str, str], config: Path | None) -> dict[str, Any]:
    named = config or (Path(env["P2PMODEL_CONFIG"]) if env.get("P2PMODEL_CONFIG") else None)
    candidates = [named] if named else [Path("p2pmodel.toml"), _home(env) / ".config/p2pmodel/p2pmodel.toml"]
    for path in candidates:
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if named:
                raise InvalidInput(f"there is no settings file {path}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InvalidInput(f"settings file {path} cannot be read: {reason}") from None
    return {}


_ENVIRONMENT = {
    "P2PMODEL_PART_SIZE": "origin.part_size",
    "P2PMODEL_PATIENCE": "origin.patience",
    "P2PMODEL_CONNECT_TIMEOUT": "origin.connect_timeout",
    "P2PMODEL_READ_TIMEOUT": "origin.read_timeout",
    "P2PMODEL_LISTEN": "swarm.listen",
    "P2PMODEL_COORDINATOR_TIMEOUT": "swarm.coordinator_timeout",
    "P2PMODEL_PEER_TIMEOUT": "swarm.peer_timeout",
    "P2PMODEL_MAGNET_TIMEOUT": "swarm.magnet_timeout",
    "P2PMODEL_STALL_TIMEOUT": "swarm.stall_timeout",
    "P2PMODEL_UPLOAD_LIMIT": "swarm.upload_limit",
    "P2PMODEL_DOWNLOAD_LIMIT": "swarm.download_limit",
    "P2PMODEL_ORIGIN_BUDGET": "swarm.origin_budget",
    "P2PMODEL_ZONE": "swarm.zone",
    "P2PMODEL_SOCKET": "daemon.socket",
    "P2PMODEL_MAX_ACTIVE": "daemon.max_active",
    "P2PMODEL_HUB_LISTEN": "daemon.hub_listen",
    "P2PMODEL_TLS_CERTIFICATE": "http.tls_certificate",
    "P2PMODEL_TLS_KEY": "http.tls_key",
    "P2PMODEL_TLS_CLIENT_CA": "http.tls_client_ca",
    "P2PMODEL_SERVER": "client.server",
    "P2PMODEL_SERVER_CA": "client.ca_file",
    "P2PMODEL_SERVER_TOKEN_FILE": "client.token_file",
    "P2PMODEL_STATE_DIR": "state_dir",
    "HF_HUB_CACHE": "cache_dir",
}
_SCHEDULES = {
    "P2PMODEL_UPLOAD_SCHEDULE": "daemon.upload_schedule",
    "P2PMODEL_DOWNLOAD_SCHEDULE": "daemon.download_schedule",
}
_TRUE = {"1", "ON", "YES", "TRUE"}


def _apply_environment(values: dict[str, Any], env: Mapping[str, str]) -> None:
    for name, key in _ENVIRONMENT.items():
        if env.get(name):
            _set(values, key, env[name])
    for name, key in _SCHEDULES.items():
        if env.get(name):
            _set(values, key, [part.strip() for part in env[name].split(";") if part.strip()])
    if env.get("P2PMODEL_COORDINATORS"):
        values["coordinators"] = _split(env["P2PMODEL_COORDINATORS"])
    if "HF_HUB_OFFLINE" in env:
        values["offline"] = env["HF_HUB_OFFLINE"].upper() in _TRUE
    if "HF_HUB_DISABLE_PROGRESS_BARS" in env:
        values["progress"] = env["HF_HUB_DISABLE_PROGRESS_BARS"].upper() not in _TRUE


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        nested = values.setdefault(parent, {})
        if not isinstance(nested, dict):
            raise InvalidInput(f"setting {parent}: expected a table", hint=_HINT)
        values = nested
    values[last] = value


def _mirrors(listed: Any, env: Mapping[str, str], flags: Sequence[str] | None) -> list[dict[str, Any]]:
    """The mirror list in the order it is asked: `--endpoint` or P2PMODEL_ENDPOINTS replace the file's list,
    HF_ENDPOINT stands for a missing one, HF_MIRROR_PRIORITY picks and orders by name or URL."""
    table = listed if listed is not None else []
    if not isinstance(table, list) or not all(isinstance(m, dict) for m in table):
        raise InvalidInput("setting mirrors: expected [[mirrors]] tables", hint=_HINT)
    # Checked even when it is not used: huggingface_hub reads it too, and says less.
    single = _single(env.get("HF_ENDPOINT", ""))
    endpoints = flags or _split(env.get("P2PMODEL_ENDPOINTS", ""))
    if endpoints:
        table = [_known(table, url) | {"priority": 0} for url in endpoints]
    elif not table:
        table = [_known([], single)] if single else [{"name": "official", "endpoint": OFFICIAL_ENDPOINT}]
    if env.get("HF_MIRROR_PRIORITY") and not flags:
        wanted = _split(env["HF_MIRROR_PRIORITY"])
        table = [_known(table, entry) | {"priority": rank} for rank, entry in enumerate(wanted)]
    ordered = sorted((dict(m) for m in table), key=lambda m: m["priority"] if _is_int(m.get("priority")) else 0)
    for mirror in ordered:
        _attach_token(mirror, env)
    return ordered


def _single(endpoint: str) -> str:
    """HF_ENDPOINT, which for every Hugging Face client is one URL; "" if it is not set."""
    if not endpoint.strip():
        return ""
    if "," in endpoint:
        raise InvalidInput(
            "HF_ENDPOINT is a list, and may name one endpoint only",
            hint="put the list into P2PMODEL_ENDPOINTS or HF_MIRROR_PRIORITY",
        )
    try:
        return check_url(endpoint.strip())
    except ValueError as error:
        raise InvalidInput(f"HF_ENDPOINT: {error}") from None


def _known(table: list[dict[str, Any]], entry: str) -> dict[str, Any]:
    for mirror in table:
        if entry in (mirror.get("name"), str(mirror.get("endpoint")).rstrip("/"), mirror.get("endpoint")):
            return mirror
    if "://" not in entry:
        names = ", ".join(str(m.get("name")) for m in table) or "none are configured"
        raise InvalidInput(f"mirror '{printable(entry)}' is neither a URL nor the name of one ({names})", hint=_HINT)
    return {"name": urlsplit(entry).netloc.rpartition("@")[2], "endpoint": entry}


def _attach_token(mirror: dict[str, Any], env: Mapping[str, str]) -> None:
    """A mirror's own token_env; HF_TOKEN (or the hub's token file) goes to the official hub and to HF_ENDPOINT
    alone, the two places for which the user can have meant it."""
    endpoint = str(mirror.get("endpoint", "")).rstrip("/")
    if mirror.get("token_env"):
        token = env.get(str(mirror["token_env"]))
    elif endpoint in (OFFICIAL_ENDPOINT, env.get("HF_ENDPOINT", "").strip().rstrip("/")):
        token = _hub_token(env)
    else:
        token = None
    if token and "token" not in mirror:
        mirror["token"] = token


def _hub_token(env: Mapping[str, str]) -> str | None:
    if env.get("HF_TOKEN"):
        return env["HF_TOKEN"].strip()
    path = Path(env["HF_TOKEN_PATH"]) if env.get("HF_TOKEN_PATH") else _hf_home(env) / "token"
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _home(env: Mapping[str, str]) -> Path:
    return Path(env["HOME"]) if env.get("HOME") else Path.home()


def _hf_home(env: Mapping[str, str]) -> Path:
    if env.get("HF_HOME"):
        return Path(env["HF_HOME"]).expanduser()
    cache = Path(env["XDG_CACHE_HOME"]) if env.get("XDG_CACHE_HOME") else _home(env) / ".cache"
    return cache / "huggingface"


def _default_cache(env: Mapping[str, str]) -> Path:
    return _hf_home(env) / "hub"


def _default_state(env: Mapping[str, str]) -> Path:
    state = Path(env["XDG_STATE_HOME"]) if env.get("XDG_STATE_HOME") else _home(env) / ".local/state"
    return state / "p2pmodel"


def _default_socket(env: Mapping[str, str], state_dir: Path) -> Path:
    return (Path(env["XDG_RUNTIME_DIR"]) if env.get("XDG_RUNTIME_DIR") else state_dir) / "p2pmodel.sock"


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
