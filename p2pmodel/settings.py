"""Settings, read once: p2pmodel.toml < environment (P2PMODEL_*, HF_*) < flags, frozen and passed down in parts.

The keys, their defaults and the environment names are documented in README.md; a test holds the two together.
"""

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from p2pmodel.domain.addresses import ListenAddress
from p2pmodel.domain.names import printable
from p2pmodel.domain.schedules import Schedule
from p2pmodel.errors import InvalidInput

OFFICIAL_ENDPOINT = "https://huggingface.co"
OFF = "off"
"""What stands in place of an address where nobody is to listen."""

_ZONE = re.compile(r"[A-Za-z0-9._-]{0,64}")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MirrorSettings(_Part):
    """One HTTP mirror: a hub-compatible endpoint, possibly with a path prefix."""

    name: str
    endpoint: str
    priority: int = 0
    """Lower is asked first; equal priorities keep the order of the list."""
    token_env: str | None = None
    """Environment variable with the bearer token meant for this endpoint."""
    token: SecretStr | None = Field(default=None, repr=False)
    max_connections: int = Field(default=8, ge=1, le=64)
    max_bytes_per_second: int | None = Field(default=None, ge=1024)
    """Over all connections together; None is unlimited."""
    ca_file: Path | None = None
    """PEM file of certificate authorities that this endpoint's certificate may be signed by, besides the system's."""
    fallback: bool = False
    """Asked only when no other mirror can be; it never shares a download with others."""
    client_tokens: bool | None = None
    """Whether the token that a client of the daemon's hub endpoint sends may be passed on to it; None: if it is the
    official hub."""

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, value: str) -> str:
        return check_url(value)

    @property
    def takes_client_tokens(self) -> bool:
        """`client_tokens`, decided."""
        return self.endpoint == OFFICIAL_ENDPOINT if self.client_tokens is None else self.client_tokens


class OriginSettings(_Part):
    """How mirrors are pulled from."""

    part_size: int = Field(default=16 << 20, ge=1 << 16)
    """Bytes asked for in one ranged request."""
    connect_timeout: float = Field(default=10.0, gt=0)
    read_timeout: float = Field(default=20.0, gt=0)
    """Seconds without a byte after which a request counts as stalled."""
    patience: float = Field(default=120.0, gt=0)
    """Seconds for which failing mirrors are retried without any progress before the job gives up."""
    state_dir: Path | None = None
    """Where what is known of the mirrors is kept; None remembers nothing. Follows `Settings.state_dir`."""


class SwarmSettings(_Part):
    """How this node takes part in swarms."""

    listen: str = "127.0.0.1:0"
    """ADDRESS:PORT for peers; port 0 takes a free one. Loopback unless set."""
    coordinator_timeout: float = Field(default=5.0, gt=0)
    """Seconds to wait for the coordinators before going on without them."""
    magnet_timeout: float = Field(default=60.0, gt=0)
    """Seconds in which some peer must have sent the metadata a magnet stands for."""
    peer_timeout: float = Field(default=10.0, gt=0)
    """Seconds without progress from peers after which missing pieces are taken from the mirrors."""
    stall_timeout: float = Field(default=120.0, gt=0)
    """Seconds without any progress after which a fetch that nobody can feed gives up."""
    upload_limit: int = Field(default=0, ge=0)
    """Bytes a second to all peers together; 0 is unlimited."""
    download_limit: int = Field(default=0, ge=0)
    origin_budget: float = Field(default=1.05, ge=0)
    """Copies of a snapshot that the peers of a coordinator may take from the mirrors together; 0 is unlimited."""
    zone: str = ""
    """The rack or site of this node: trackers tell it mainly of peers of the same zone."""

    @field_validator("zone")
    @classmethod
    def _check_zone(cls, value: str) -> str:
        if not _ZONE.fullmatch(value):
            raise ValueError("a zone is named by at most 64 letters, digits, '.', '_' or '-'")
        return value

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        try:
            return str(ListenAddress.parse(value))
        except InvalidInput as error:
            raise ValueError(str(error)) from None


class WatchSettings(_Part):
    """When `mirrors watch` raises an alarm, and where it says so."""

    interval: float = Field(default=30.0, ge=0.1)
    """Seconds from one probe of a mirror to its next."""
    max_latency_ms: float = Field(default=100.0, gt=0)
    """Milliseconds to connect above which a mirror is slow."""
    min_mbps: float = Field(default=50.0, ge=0)
    """Megabytes a second below which a mirror is slow."""
    min_samples: int = Field(default=5, ge=1, le=1000)
    """Probes whose median an alarm looks at; before there are as many, there is none."""
    webhook: str | None = None
    """URL that each alarm and recovery is posted to."""
    metrics: str | None = None
    """ADDRESS:PORT at which Prometheus may ask; port 0 takes a free one."""

    @field_validator("webhook")
    @classmethod
    def _check_webhook(cls, value: str | None) -> str | None:
        if value is not None:
            # What it may have besides, and may be secret, is not for the message.
            check_url(value.partition("#")[0].partition("?")[0])
        return value

    @field_validator("metrics")
    @classmethod
    def _check_metrics(cls, value: str | None) -> str | None:
        try:
            return None if value is None else str(ListenAddress.parse(value))
        except InvalidInput as error:
            raise ValueError(str(error)) from None


class DaemonSettings(_Part):
    """How the daemon of a node is reached, and how much it does at once."""

    socket: Path | None = None
    """Unix socket of the control API; None: `p2pmodel.sock` in XDG_RUNTIME_DIR, else in `Settings.state_dir`."""
    max_active: int = Field(default=3, ge=1, le=100)
    """Transfers that download at a time; further ones wait. Those that are complete serve beside them."""
    hub_listen: str | None = None
    """ADDRESS:PORT of the hub endpoint, or `off`; None: 127.0.0.1:8092, unless that is taken."""
    upload_schedule: tuple[str, ...] = ()
    """`[DAYS ]HH:MM-HH:MM=RATE`, local time: the first window that applies replaces `swarm.upload_limit`."""
    download_schedule: tuple[str, ...] = ()

    @field_validator("hub_listen")
    @classmethod
    def _check_hub_listen(cls, value: str | None) -> str | None:
        try:
            return value if value in (None, OFF) else str(ListenAddress.parse(str(value)))
        except InvalidInput as error:
            raise ValueError(str(error)) from None

    @field_validator("upload_schedule", "download_schedule")
    @classmethod
    def _check_schedule(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            Schedule.parse(value)
        except InvalidInput as error:
            raise ValueError(str(error)) from None
        return value


class HttpSettings(_Part):
    """What each of the daemon's HTTP addresses bears: the control API's and the hub endpoint's, over TCP."""

    tls_certificate: Path | None = None
    """PEM file with the certificate and those it was signed with; None: plain HTTP."""
    tls_key: Path | None = None
    """PEM file with its private key."""
    tls_client_ca: Path | None = None
    """PEM file of the authorities one of which must have signed the certificate of each client; None: any client."""
    max_connections: int = Field(default=4096, ge=1)
    max_connections_per_address: int = Field(default=1024, ge=1)
    max_requests_per_second: float = Field(default=1000.0, ge=0)
    """From one address, in the long run; 0 is unlimited."""
    header_timeout: float = Field(default=15.0, gt=0)
    """Seconds for the TLS handshake, and from there, or from its first byte, until the header of a request is here."""
    body_timeout: float = Field(default=60.0, gt=0)
    """Seconds for the body of a request."""
    stall_timeout: float = Field(default=120.0, ge=0.1)
    """Seconds after which who takes nothing of what it is sent is cut off."""

    @property
    def asks_for_certificates(self) -> bool:
        """Whether only clients with a certificate get in."""
        return self.tls_client_ca is not None


class ClientSettings(_Part):
    """Which daemon is asked, instead of the one of this machine."""

    server: str | None = None
    """URL of the control API of a daemon; None: by the unix socket."""
    ca_file: Path | None = None
    """PEM file of certificate authorities that its certificate may be signed by, besides the system's."""
    token_file: Path | None = None
    """File with the token that it asks for."""
    certificate: Path | None = None
    """PEM file with a certificate to show it; `key` is its private key."""
    key: Path | None = None

    @field_validator("server")
    @classmethod
    def _check_server(cls, value: str | None) -> str | None:
        return None if value is None else check_url(value)


class Settings(_Part):
    """Everything a command needs to know about its surroundings."""

    cache_dir: Path
    """The hub cache: HF_HUB_CACHE, or HF_HOME/hub."""
    mirrors: tuple[MirrorSettings, ...]
    coordinators: tuple[str, ...] = ()
    """Base URLs of tracker-and-catalog services."""
    state_dir: Path | None = None
    """What is worth keeping between runs, but no data: P2PMODEL_STATE_DIR, or XDG_STATE_HOME/p2pmodel."""
    offline: bool = False
    progress: bool = True
    origin: OriginSettings = OriginSettings()
    swarm: SwarmSettings = SwarmSettings()
    watch: WatchSettings = WatchSettings()
    daemon: DaemonSettings = DaemonSettings()
    http: HttpSettings = HttpSettings()
    client: ClientSettings = ClientSettings()

    @field_validator("coordinators")
    @classmethod
    def _check_coordinators(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_url(url) for url in value)


def check_url(value: str) -> str:
    """Return an http(s) URL without trailing slash, or raise ValueError."""
    try:
        parts = urlsplit(value)
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        port_ok = False
    if not port_ok or parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"'{printable(value)}' is not an http:// or https:// URL")
    return value.rstrip("/")


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
