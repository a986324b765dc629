"""Settings of a coordinator: its tracker, and what one client may take of it."""

import ipaddress
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
