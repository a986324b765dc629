"""Settings of a coordinator: its tracker, what one client may take of it, and its private swarms."""

import fnmatch
import ipaddress
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from p2pmodel.config.sections.section import Section, split_list


class TrackerSettings(Section):
    """The tracker of a coordinator: `p2pmodel coordinator`, and the one in `p2pmodel seed`."""

    ip_from: Annotated[tuple[str, ...], NoDecode] = ()
    """Networks in which clients may announce another address than their own with `ip=`; comma-separated."""
    probe_peers: bool = True
    """Try whether others can connect to each peer and source, at the address that it announces from."""
    peers_per_address: int = Field(default=8192, ge=1)
    """Places of clients from one address in all swarms together; further clients get peers and are not listed."""

    @field_validator("ip_from", mode="before")
    @classmethod
    def _split_networks(cls, value: Any) -> Any:
        return split_list(value, ",")

    @field_validator("ip_from")
    @classmethod
    def _check_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ipaddress.ip_network(text)) for text in value)


class QuotaSettings(Section):
    """What one client may take of a coordinator. An address is an IPv4 address or an IPv6 /64."""

    assemblies_per_address: int = Field(default=64, ge=1)
    """Assemblies in progress that one address began, of 256 in all."""
    messages_per_second: float = Field(default=100.0, gt=0)
    """Messages/s that are read from one peer under leases or in an assembly; faster peers are read more slowly."""
    sources_per_address: int = Field(default=16, ge=1)
    """Sources of one torrent from one address, of 64 in all."""
    torrents_per_publisher: int = Field(default=5000, ge=1)
    """Torrents of one publisher in the catalog, of 10,000 in all; the same for all assembled torrents together."""


class PrivateSettings(Section):
    """Private swarms: only nodes that a coordinator admits exchange pieces, over TLS."""

    repos: Annotated[tuple[str, ...], NoDecode] = ()
    """Repositories that are exchanged in private swarms alone, as `org/*`; comma-separated in an environment variable.
    """
    ca_file: Path | None = None
    """PEM file with the root certificate of the cluster's authority: for seeders and coordinators of private swarms."""
    ca_key: Path | None = None
    """PEM file with the private key of that authority, mode 0600: for coordinators alone."""
    lifetime: float = Field(default=600.0, ge=2)
    """Seconds for which a coordinator's certificates for nodes are valid; it renews them after half of that."""
    revoked: Annotated[tuple[str, ...], NoDecode] = ()
    """Nodes that a coordinator admits to no private swarm: addresses, networks (10.0.0.0/8), names in client
    certificates and names of publishers, as `gpu*`. SIGHUP applies a change at once. Comma-separated in an environment
    variable."""
    port: int | None = Field(default=None, ge=0, le=0xFFFF)
    """Port for peers of private swarms, on the host of `swarm.listen`. None: 6883 or, where that is taken or on
    loopback, a free one."""
    source_port: int | None = Field(default=None, ge=0, le=0xFFFF)
    """Port of the HTTP source of private snapshots, on the host of `swarm.listen`: over TLS, for nodes with a
    certificate of the swarm. None: 6884 or, where that is taken or on loopback, a free one."""

    @field_validator("repos", "revoked", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return split_list(value, ",")

    def covers(self, repo: str) -> bool:
        """Whether the swarms of this repository must be private."""
        return any(fnmatch.fnmatchcase(repo.lower(), pattern.lower()) for pattern in self.repos)
