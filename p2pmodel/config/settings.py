"""Settings, frozen and passed down in sections. `sources` reads them, once.

docs/reference/settings.md is generated from these models and their attribute docstrings.
"""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from p2pmodel.config.checks import check_advertised, check_networks, check_url
from p2pmodel.config.coordinator_settings import QuotaSettings, TrackerSettings
from p2pmodel.config.schedules import Schedule
from p2pmodel.config.section import ByteCount, Section, split_list
from p2pmodel.config.watch_settings import WatchSettings
from p2pmodel.core.content.names import check_node_name
from p2pmodel.core.network.addresses import AdvertisedAddress, ListenAddress
from p2pmodel.core.network.egress import Egress
from p2pmodel.core.network.proxies import DirectHosts, Proxies
from p2pmodel.errors import InvalidInput

OFFICIAL_ENDPOINT = "https://huggingface.co"
OFF = "off"
"""The value of an address setting that turns its listener off."""

LOOPBACK = "127.0.0.1:0"
"""Address for peers where none is set and no coordinator is on another machine."""

_ZONE = re.compile(r"[A-Za-z0-9._-]{0,64}")


class MirrorSettings(Section):
    """One HTTP mirror: a hub-compatible endpoint, possibly with a path prefix."""

    name: str
    """Name in output, metrics and other settings."""
    endpoint: str
    """URL of the endpoint, without the repository."""
    priority: int = 0
    """Lower is asked first; equal priorities keep the order of the list."""
    token_env: str | None = None
    """Environment variable that holds the bearer token of this endpoint; named `HF_...` or `P2PMODEL_..._TOKEN`."""
    token_file: Path | None = None
    """File with that token, mode 0600."""
    token: SecretStr | None = Field(default=None, repr=False)
    """Bearer token of this endpoint; `token_env` and `token_file` keep it out of the settings file."""
    username: str | None = None
    """User name of an endpoint with basic authentication; its token is then the password."""
    max_connections: int = Field(default=8, ge=1, le=64)
    """Connections to this mirror at a time."""
    max_bytes_per_second: ByteCount | None = Field(default=None, ge=1024)
    """Rate limit over all connections to this mirror, bytes/s or as in `20MB`; None: unlimited."""
    ca_file: Path | None = None
    """PEM file of certificate authorities trusted for this endpoint, besides the system's."""
    fallback: bool = False
    """Use this mirror only while no other is available; it never shares a download."""
    redirects: tuple[str, ...] = ()
    """Hosts and networks (10.0.0.0/8) that redirects of this mirror may lead to, besides public addresses and its own
    private network."""
    client_tokens: bool | None = None
    """Whether tokens of the hub endpoint's clients are forwarded to this mirror; None: only to the official hub."""

    @field_validator("redirects")
    @classmethod
    def _check_redirects(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return check_networks(value)

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, value: str) -> str:
        return check_url(value, instead="set username, and the password as token_file or token_env")

    @field_validator("username")
    @classmethod
    def _check_username(cls, value: str | None) -> str | None:
        if value is not None and (":" in value or not value.isprintable()):
            raise ValueError("a user name has no ':' and no control characters")
        return value

    @property
    def takes_client_tokens(self) -> bool:
        """`client_tokens` with its default applied."""
        return self.endpoint == OFFICIAL_ENDPOINT if self.client_tokens is None else self.client_tokens


class OriginSettings(Section):
    """Downloads from the mirrors."""

    part_size: int = Field(default=16 << 20, ge=1 << 16)
    """Size of one ranged request, bytes."""
    connect_timeout: float = Field(default=10.0, gt=0)
    """Seconds to connect to a mirror."""
    read_timeout: float = Field(default=20.0, gt=0)
    """Seconds without a byte after which a request has stalled."""
    patience: float = Field(default=120.0, gt=0)
    """Seconds of retries without progress after which a download gives up."""
    allowed_networks: Annotated[tuple[str, ...], NoDecode] = ()
    """Hosts and networks (10.0.0.0/8) that are not public, and that redirects, magnets and torrents may lead to;
    comma-separated in an environment variable."""
    http_proxy: SecretStr | None = Field(default=None, repr=False)
    """HTTP proxy for `http://` URLs of mirrors, redirects, web seeds, .torrent files and webhooks."""
    https_proxy: SecretStr | None = Field(default=None, repr=False)
    """The same for `https://` URLs."""
    no_proxy: Annotated[tuple[str, ...], NoDecode] = ()
    """Hosts with their subdomains, addresses and networks without a proxy, also as `HOST:PORT`; `*`: everything."""
    state_dir: Path | None = None
    """Folder of the mirrors' measured state; None: kept in memory. Always that of `state_dir`."""

    @field_validator("allowed_networks", "no_proxy", mode="before")
    @classmethod
    def _split_networks(cls, value: Any) -> Any:
        return split_list(value, ",")

    @field_validator("allowed_networks")
    @classmethod
    def _check_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return check_networks(value)

    @property
    def egress(self) -> Egress:
        """The rule for addresses that others give."""
        return Egress.parse(self.allowed_networks)

    @property
    def proxies(self) -> Proxies:
        """The rule for the proxy of each URL."""
        given = {"http": self.http_proxy, "https": self.https_proxy}
        by_scheme = {scheme: proxy.get_secret_value() for scheme, proxy in given.items() if proxy}
        return Proxies(by_scheme, DirectHosts.parse(self.no_proxy))


class SwarmSettings(Section):
    """This node as a peer."""

    listen: str | None = None
    """Address for peers, ADDRESS:PORT; port 0 takes a free one. None: the local address of the route to the first
    coordinator on another machine, port 6881 or, where that is taken, a free one; loopback without such a coordinator.
    """
    advertise: Annotated[tuple[str, ...], NoDecode] = ()
    """Addresses by which peers reach this node, ADDRESS or ADDRESS:PORT, behind NAT, in a container, or on another
    network than the coordinator's; comma-separated in an environment variable. Empty: the address of each announce.
    Another address than that of the announce needs the coordinator's member token, or its `tracker.ip_from`."""
    source_port: int | None = Field(default=None, ge=0, le=0xFFFF)
    """Port of a daemon's HTTP source for leaseholders, on the host of `listen`. None: 6882 or, where that is taken or
    on loopback, a free one."""
    trust: Literal["mirrors", "coordinator"] = "mirrors"
    """What confirms the files of a commit: `mirrors`: a torrent is used if a mirror lists the same files;
    `coordinator`: without asking a mirror, for clusters that reach none."""
    foreign_trackers: Literal["none", "public", "any"] = "public"
    """Trackers in a .torrent or magnet of the command line that are announced to, besides the coordinators: none, those
    at public addresses and in `origin.allowed_networks`, or any."""
    coordinator_timeout: float = Field(default=5.0, gt=0)
    """Seconds to wait for the coordinators before a fetch goes on without them."""
    magnet_timeout: float = Field(default=60.0, gt=0)
    """Seconds to wait for the metadata of a magnet link from peers."""
    peer_timeout: float = Field(default=10.0, gt=0)
    """Seconds after which sources that deliver nothing or a trickle count as gone: seeders and mirrors are asked."""
    stall_timeout: float = Field(default=120.0, gt=0)
    """Seconds without any progress after which a fetch gives up."""
    upload_limit: ByteCount = Field(default=0, ge=0)
    """Upload limit over all peers, bytes/s or as in `20MB`; 0: unlimited."""
    download_limit: ByteCount = Field(default=0, ge=0)
    """Download limit over all sources (peers, seeders, mirrors), bytes/s or as in `20MB`; 0: unlimited."""
    origin_budget: float = Field(default=1.05, ge=0)
    """Copies of a snapshot that all peers of a coordinator together may download from the mirrors; 0: unlimited."""
    zone: str = ""
    """Rack or site of this node. Trackers return mainly peers of the same zone."""

    @field_validator("advertise", mode="before")
    @classmethod
    def _split_advertise(cls, value: Any) -> Any:
        return split_list(value, ",")

    @field_validator("advertise")
    @classmethod
    def _check_advertise(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return check_advertised(value, names=False)

    @property
    def advertised(self) -> tuple[AdvertisedAddress, ...]:
        """`advertise`, parsed."""
        return tuple(map(AdvertisedAddress.parse, self.advertise))

    @field_validator("zone")
    @classmethod
    def _check_zone(cls, value: str) -> str:
        if not _ZONE.fullmatch(value):
            raise ValueError("a zone name has at most 64 letters, digits, '.', '_' or '-'")
        return value

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: str | None) -> str | None:
        try:
            return None if value is None else str(ListenAddress.parse(value))
        except InvalidInput as error:
            raise ValueError(str(error)) from None


class StoreSettings(Section):
    """The cache. Long-lived processes read its files again and compare them with their hashes."""

    scrub_rate: int = Field(default=20_000_000, ge=0)
    """Rate at which files are read again, bytes/s; 0: never."""
    scrub_interval: float = Field(default=7.0, ge=0)
    """Days from the end of one pass over all files to the begin of the next; 0: never."""


class DaemonSettings(Section):
    """The daemon of a node."""

    socket: Path | None = None
    """Unix socket of the control API; None: `p2pmodel.sock` in XDG_RUNTIME_DIR, else in `state_dir`."""
    socket_group: str | None = None
    """Group (name or number) with full access to the socket, besides this process's user and root. Its folder must be
    open to the group."""
    max_active: int = Field(default=3, ge=1, le=100)
    """Number of transfers that download at a time; further ones wait. Complete transfers keep serving."""
    serve_cached: bool = True
    """Serve the whole snapshots that are in the cache when the daemon starts, if there are coordinators."""
    hub_listen: str | None = None
    """Address of the hub endpoint, ADDRESS:PORT or `off`; None: 127.0.0.1:8092, unless that is in use."""
    upload_schedule: Annotated[tuple[str, ...], NoDecode] = ()
    """Windows `[DAYS ]HH:MM-HH:MM=RATE`, local time; the first that applies replaces `swarm.upload_limit`."""
    download_schedule: Annotated[tuple[str, ...], NoDecode] = ()
    """The same for `swarm.download_limit`. In an environment variable windows are separated by `;`."""

    @field_validator("hub_listen")
    @classmethod
    def _check_hub_listen(cls, value: str | None) -> str | None:
        try:
            return value if value in (None, OFF) else str(ListenAddress.parse(str(value)))
        except InvalidInput as error:
            raise ValueError(str(error)) from None

    @field_validator("upload_schedule", "download_schedule", mode="before")
    @classmethod
    def _split_schedule(cls, value: Any) -> Any:
        return split_list(value, ";")

    @field_validator("upload_schedule", "download_schedule")
    @classmethod
    def _check_schedule(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            Schedule.parse(value)
        except InvalidInput as error:
            raise ValueError(str(error)) from None
        return value


class HttpSettings(Section):
    """Access to the HTTP addresses of all servers, their limits, and TLS for the daemon's."""

    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """DNS names of these servers in addition to the machine's own; comma-separated in an environment variable."""
    public_url: str | None = None
    """URL of a mirror or a daemon's hub endpoint for clients of a reverse proxy, with its path; None: as requested, or
    as X-Forwarded-Proto, -Host and -Prefix of a proxy on this machine say."""
    allow_local_users: bool = False
    """Admit all users of this machine over loopback, not only the server's own user and root."""
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    """Networks of reverse proxies, as 10.0.0.1 or 10.1.0.0/16. The client of a request from there is the right-most
    address in X-Forwarded-For or Forwarded that is not in them; each must append its client to one of these headers.
    Comma-separated in an environment variable."""
    advertise: Annotated[tuple[str, ...], NoDecode] = ()
    """Addresses or names by which clients reach a coordinator or mirror, ADDRESS or ADDRESS:PORT; the first one stands
    in its URLs. Empty: the address that it listens on; on all addresses, those of this machine. Comma-separated in an
    environment variable."""

    tls_certificate: Path | None = None
    """PEM file with the server certificate and its chain; None: plain HTTP."""
    tls_key: Path | None = None
    """PEM file with the private key of the certificate."""
    tls_client_ca: Path | None = None
    """PEM file of the authorities that must have signed each client's certificate; None: no client certificates."""
    max_connections: int = Field(default=4096, ge=1)
    """Open connections of one listener, at most a sixth of the open files that the system allows."""
    max_connections_per_address: int = Field(default=1024, ge=1)
    """Open connections from one address, at most a quarter of all that the listener admits."""
    max_requests_per_second: float = Field(default=1000.0, ge=0)
    """Requests/s from one address, long-term average; 0: unlimited."""
    header_timeout: float = Field(default=15.0, gt=0)
    """Seconds for the TLS handshake, and for the header of a request."""
    body_timeout: float = Field(default=60.0, gt=0)
    """Seconds for the body of a request."""
    stall_timeout: float = Field(default=120.0, ge=0.1)
    """Seconds without the client reading after which its connection is closed."""

    @field_validator("allowed_hosts", "trusted_proxies", mode="before")
    @classmethod
    def _split_hosts(cls, value: Any) -> Any:
        return split_list(value, ",")

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ipaddress.ip_network(text)) for text in value)

    @field_validator("public_url")
    @classmethod
    def _check_public_url(cls, value: str | None) -> str | None:
        return None if value is None else check_url(value)

    @field_validator("advertise", mode="before")
    @classmethod
    def _split_advertise(cls, value: Any) -> Any:
        return split_list(value, ",")

    @field_validator("advertise")
    @classmethod
    def _check_advertise(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return check_advertised(value, names=True)

    @property
    def unpaced(self) -> "HttpSettings":
        """The same limits without a request rate."""
        return self.model_copy(update={"max_requests_per_second": 0})

    @property
    def asks_for_certificates(self) -> bool:
        """Whether clients need a certificate."""
        return self.tls_client_ca is not None


class ClientSettings(Section):
    """The daemon that commands talk to, if not the one of this machine."""

    server: str | None = None
    """URL of a daemon's control API; None: the unix socket."""
    ca_file: Path | None = None
    """PEM file of certificate authorities trusted for that daemon, besides the system's."""
    token_file: Path | None = None
    """File with the daemon's token, mode 0600."""
    certificate: Path | None = None
    """PEM file with a client certificate."""
    key: Path | None = None
    """PEM file with the private key of `certificate`."""

    @field_validator("server")
    @classmethod
    def _check_server(cls, value: str | None) -> str | None:
        return None if value is None else check_url(value, instead="set client.token_file")


class Settings(Section):
    """All settings of one run."""

    cache_dir: Path
    """Hugging Face cache; HF_HUB_CACHE, else HF_HOME/hub."""
    mirrors: tuple[MirrorSettings, ...]
    """`[[mirrors]]` tables in the order they are asked; P2PMODEL_ENDPOINTS and HF_ENDPOINT replace them."""
    coordinators: Annotated[tuple[str, ...], NoDecode] = ()
    """Base URLs of coordinators; comma-separated in an environment variable."""
    coordinator_token_file: Path | None = None
    """File with the coordinators' token, mode 0600; or with a line `URL TOKEN` for each that has its own."""
    publish_token_file: Path | None = None
    """The same with the token of a publisher, for seeders. Coordinators on this machine make one for their user."""
    coordinator_ca_file: Path | None = None
    """PEM file of certificate authorities trusted for coordinators and their seeders over https, besides the system's;
    announces use it, too."""
    state_dir: Path | None = None
    """Folder of state that outlives a run; XDG_STATE_HOME/p2pmodel by default."""
    node_name: str | None = None
    """Name of this node in roll-outs and messages; None: the host name without its domain."""
    offline: bool = False
    """Ask no mirror; HF_HUB_OFFLINE sets it."""
    progress: bool = True
    """Show progress on stderr; HF_HUB_DISABLE_PROGRESS_BARS turns it off."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe level of log lines on stderr."""
    origin: OriginSettings = OriginSettings()
    swarm: SwarmSettings = SwarmSettings()
    store: StoreSettings = StoreSettings()
    watch: WatchSettings = WatchSettings()
    daemon: DaemonSettings = DaemonSettings()
    http: HttpSettings = HttpSettings()
    tracker: TrackerSettings = TrackerSettings()
    quotas: QuotaSettings = QuotaSettings()
    client: ClientSettings = ClientSettings()

    @field_validator("node_name")
    @classmethod
    def _check_node_name(cls, value: str | None) -> str | None:
        try:
            return None if value is None else check_node_name(value)
        except InvalidInput as error:
            raise ValueError(str(error)) from None

    @field_validator("coordinators", mode="before")
    @classmethod
    def _split_coordinators(cls, value: Any) -> Any:
        return split_list(value, ",")

    @field_validator("coordinators")
    @classmethod
    def _check_coordinators(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_url(url) for url in value)
