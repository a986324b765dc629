"""Settings of a node as a peer."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from p2pmodel.config.checks import check_advertised
from p2pmodel.config.sections.section import ByteCount, Section, split_list
from p2pmodel.core.network.addresses import AdvertisedAddress, ListenAddress
from p2pmodel.errors import InvalidInput

LOOPBACK = "127.0.0.1:0"
"""Address for peers where none is set and no coordinator is on another machine."""

_ZONE = re.compile(r"[A-Za-z0-9._-]{0,64}")


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
    engines: Literal["auto"] | Annotated[int, Field(ge=1, le=8)] = "auto"
    """Engines of this node, each with a network thread of its own, one of which ends near 1.8 GB/s. They share out the
    pieces. The first one listens at `listen`, each further one at the next port from that + 4 on (6885 and so on) or,
    where that is taken, at a free one; firewalls must admit these ports. `auto`: one for each 1.8 GB/s of the fastest
    link and four cores, at most 4; 1 where no interface reports its speed. One alone where `advertise` has a port, and
    for private snapshots."""
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
    """Rack or site of this node. Trackers return mainly peers of the same zone, and nodes pull pieces that only other
    zones have from nodes there, each piece once for each zone."""
    piece_port: int | None = Field(default=None, ge=0, le=0xFFFF)
    """Port at which a node in a zone serves pieces to nodes of other zones over HTTP, on the host of `listen`. None:
    6880 or, where that is taken or on loopback, a free one."""

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
