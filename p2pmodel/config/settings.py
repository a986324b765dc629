"""Settings, frozen and passed down in parts. `configuration` reads them, once.

The keys and their defaults are documented in README.md; a test holds the two together.
"""

import re
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from p2pmodel.config.schedules import Schedule
from p2pmodel.core.addresses import ListenAddress
from p2pmodel.core.names import printable
from p2pmodel.errors import InvalidInput

OFFICIAL_ENDPOINT = "https://huggingface.co"
OFF = "off"
"""What stands in place of an address where nobody is to listen."""

_ZONE = re.compile(r"[A-Za-z0-9._-]{0,64}")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MirrorSettings(_Section):
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


class OriginSettings(_Section):
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


class SwarmSettings(_Section):
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


class WatchSettings(_Section):
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


class DaemonSettings(_Section):
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


class HttpSettings(_Section):
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
    def unpaced(self) -> "HttpSettings":
        """The same for who may ask as often as he likes."""
        return self.model_copy(update={"max_requests_per_second": 0})

    @property
    def asks_for_certificates(self) -> bool:
        """Whether only clients with a certificate get in."""
        return self.tls_client_ca is not None


class ClientSettings(_Section):
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


class Settings(_Section):
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
