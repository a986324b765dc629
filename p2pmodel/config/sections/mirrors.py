"""Settings of mirrors, of downloads from them, and of the alarms about them."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from p2pmodel.config.checks import check_bucket, check_networks, check_url
from p2pmodel.config.sections.section import ByteCount, Section, split_list
from p2pmodel.core.content.names import EXCEPT, RepoId, RepoRoute, printable
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.network.egress import Egress
from p2pmodel.core.network.proxies import DirectHosts, Proxies
from p2pmodel.errors import InvalidInput

OFFICIAL_ENDPOINT = "https://huggingface.co"
S3 = "s3://"


class MirrorSettings(Section):
    """One mirror: a hub-compatible endpoint, with or without a path, or a bucket `s3://BUCKET/PREFIX` of an export."""

    name: str
    """Name in output, metrics and other settings."""
    endpoint: str
    """URL of the endpoint, without the repository."""
    preset: str | None = None
    """Public mirror that `name` and `endpoint` default to: official, hf-mirror, gitcode or modelscope."""
    kind: Literal["hub", "modelscope"] = "hub"
    """API of the endpoint. `modelscope`: files with the path, size and hash of the hub's come from there, whatever its
    revisions are called."""
    repos: tuple[str, ...] = ()
    """Repositories that are looked for here, as in `["our-org/*", "Qwen/*"]`; with `!` before a pattern: not here.
    Empty: all."""
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
    certificate: Path | None = None
    """PEM file with this node's certificate, for an endpoint that asks for one."""
    key: Path | None = None
    """PEM file with the private key of that certificate, mode 0600; None: it is in the same file."""
    fallback: bool = False
    """Use this mirror only while no other is available; it never shares a download."""
    redirects: tuple[str, ...] = ()
    """Hosts and networks (10.0.0.0/8) that redirects of this mirror may lead to, besides public addresses and its own
    private network."""
    s3_endpoint: str | None = None
    """URL of the S3-compatible store of an endpoint `s3://BUCKET/PREFIX`; None: Amazon S3."""
    s3_region: str | None = None
    """Region of that store; None: as AWS programs find it, else us-east-1."""
    s3_profile: str | None = None
    """Profile of the AWS settings with its credentials; None: AWS_PROFILE, else the default one."""
    s3_credentials_file: Path | None = None
    """File with its credentials, as AWS programs have it; None: AWS_ACCESS_KEY_ID and its like, else
    ~/.aws/credentials."""
    s3_path_style: bool | None = None
    """Whether the bucket is in the path of URLs, not in the host name; None: with `s3_endpoint`."""
    client_tokens: bool | None = None
    """Whether tokens of the hub endpoint's clients are forwarded to this mirror; None: only to the official hub."""

    @field_validator("redirects")
    @classmethod
    def _check_redirects(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return check_networks(value)

    @field_validator("repos")
    @classmethod
    def _check_repos(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            if not pattern.removeprefix(EXCEPT).strip() or " " in pattern:
                raise ValueError(f"'{printable(pattern)}' is not a pattern of repositories such as Qwen/*")
        return value

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, value: str) -> str:
        if value.startswith(S3):
            return check_bucket(value)
        return check_url(value, instead="set username, and the password as token_file or token_env")

    @field_validator("s3_endpoint")
    @classmethod
    def _check_s3_endpoint(cls, value: str | None) -> str | None:
        return None if value is None else check_url(value, instead="set s3_profile or s3_credentials_file")

    @field_validator("username")
    @classmethod
    def _check_username(cls, value: str | None) -> str | None:
        if value is not None and (":" in value or not value.isprintable()):
            raise ValueError("a user name has no ':' and no control characters")
        return value

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        stored = self.endpoint.startswith(S3)
        if stored and (self.token or self.username or self.kind != "hub"):
            raise ValueError("s3:// takes no token, user name or kind: set s3_profile or s3_credentials_file")
        of_store = (self.s3_endpoint, self.s3_region, self.s3_profile, self.s3_credentials_file, self.s3_path_style)
        if not stored and any(value is not None for value in of_store):
            raise ValueError("s3_... settings go with an endpoint s3://BUCKET/PREFIX")
        return self

    @property
    def speaks_hub(self) -> bool:
        """Whether hub clients, and web seed clients, can use it: it has the hub's API over HTTP."""
        return self.kind == "hub" and not self.endpoint.startswith(S3)

    def serves(self, repo: RepoId) -> bool:
        """Whether `repo` is looked for here."""
        return RepoRoute(self.repos).takes(repo)

    def lists_commits_of(self, repo: RepoId) -> bool:
        """Whether it may know the hub's commits of `repo`."""
        return self.kind == "hub" and self.serves(repo)

    @property
    def takes_client_tokens(self) -> bool:
        """`client_tokens` with its default applied."""
        return self.endpoint == OFFICIAL_ENDPOINT if self.client_tokens is None else self.client_tokens


class OriginSettings(Section):
    """Downloads from the mirrors."""

    part_size: ByteCount = Field(default=16 << 20, ge=1 << 16)
    """Size of one ranged request, bytes or as in `16MiB`."""
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


class WatchSettings(Section):
    """Alarms of `p2pmodel mirrors watch`."""

    interval: float = Field(default=30.0, ge=0.1)
    """Seconds between two probes of a mirror."""
    max_latency_ms: float = Field(default=100.0, gt=0)
    """Connect time above which a mirror is slow, milliseconds."""
    min_mbps: float = Field(default=50.0, ge=0)
    """Speed below which a mirror is slow, MB/s."""
    min_samples: int = Field(default=5, ge=1, le=1000)
    """Number of probes of which an alarm evaluates the median; no alarm before that many."""
    webhook: SecretStr | None = Field(default=None, repr=False)
    """URL to which each alarm and each recovery is posted. It may contain a secret, and is not shown."""
    metrics: str | None = None
    """Address of the Prometheus metrics, ADDRESS:PORT; port 0 takes a free one."""

    @field_validator("webhook")
    @classmethod
    def _check_webhook(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            # Path, query and fragment may hold a secret, so the message has none of them.
            base = re.match(r"(\w+://)?[^/?#]*", value.get_secret_value())
            check_url(base[0] if base else "", instead="a secret may be in its path or query")
        return value

    @field_validator("metrics")
    @classmethod
    def _check_metrics(cls, value: str | None) -> str | None:
        try:
            return None if value is None else str(ListenAddress.parse(value))
        except InvalidInput as error:
            raise ValueError(str(error)) from None
