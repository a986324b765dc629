"""Settings, frozen and passed down in sections. `sources` reads them, once.

docs/reference/settings.md is generated from these models and their attribute docstrings.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import field_validator
from pydantic_settings import NoDecode

from p2pmodel.config.checks import check_url
from p2pmodel.config.sections.coordinator import PrivateSettings, QuotaSettings, TrackerSettings
from p2pmodel.config.sections.daemon import ClientSettings, DaemonSettings, FollowSettings, StoreSettings
from p2pmodel.config.sections.http import HttpSettings
from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings, WatchSettings
from p2pmodel.config.sections.section import Section, split_list
from p2pmodel.config.sections.swarm import SwarmSettings
from p2pmodel.config.sections.trust import (
    AccessSettings,
    AuditSettings,
    ContentSettings,
    LdapSettings,
    OidcSettings,
    TrustSettings,
)
from p2pmodel.core.content.names import RepoId, check_node_name
from p2pmodel.errors import InvalidInput


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
    coordinator_certificate: Path | None = None
    """PEM file with this node's certificate for coordinators, and their seeders, that ask for one."""
    coordinator_key: Path | None = None
    """PEM file with the private key of that certificate, mode 0600; None: it is in the same file."""
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
    follow: tuple[FollowSettings, ...] = ()
    """`[[follow]]` tables: what the daemon downloads by itself, and when."""
    origin: OriginSettings = OriginSettings()
    swarm: SwarmSettings = SwarmSettings()
    store: StoreSettings = StoreSettings()
    watch: WatchSettings = WatchSettings()
    daemon: DaemonSettings = DaemonSettings()
    http: HttpSettings = HttpSettings()
    tracker: TrackerSettings = TrackerSettings()
    quotas: QuotaSettings = QuotaSettings()
    client: ClientSettings = ClientSettings()
    trust: TrustSettings = TrustSettings()
    private: PrivateSettings = PrivateSettings()
    access: AccessSettings = AccessSettings()
    ldap: LdapSettings = LdapSettings()
    oidc: OidcSettings = OidcSettings()
    audit: AuditSettings = AuditSettings()
    contents: ContentSettings = ContentSettings()

    def webseeds(self, repo: RepoId) -> list[str]:
        """Endpoints of the mirrors from which any client may download `repo` by the hub's paths."""
        return [mirror.endpoint for mirror in self.mirrors if mirror.speaks_hub and mirror.serves(repo)]

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
