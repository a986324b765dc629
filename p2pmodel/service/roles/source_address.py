"""The URL at which leaseholders reach an HTTP source of this node."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from p2pmodel.coordinator.tracker.sources import Source
from p2pmodel.core.network.addresses import AdvertisedAddress, ListenAddress
from p2pmodel.node.local_address import local_address, reachable_hosts


@dataclass(frozen=True, slots=True)
class SourceAddress:
    """`peer` is the node's address for peers, which `advertised` replaces; its sources listen on the same host."""

    peer: ListenAddress
    zone: str = ""
    advertised: Sequence[AdvertisedAddress] = ()

    def source(self, url: str, coordinator: str, *, token: str = "", port: int | None = None) -> Source:
        """The source at `url` as clients of `coordinator` reach it. `port`: that for peers, where it is another one.

        A node that advertises no address and listens on all gives its local address of the route to `coordinator`.
        Blocks.
        """
        own = self.peer if port is None else ListenAddress(self.peer.host, port)
        peer = next((each.at(own.port) for each in self.advertised), own)
        if peer == own and not peer.unspecified:
            return Source(url, token, str(peer), self.zone)
        if peer.unspecified:
            peer = ListenAddress(local_address(coordinator) or reachable_hosts(peer.host)[0], peer.port)
        parts = urlsplit(url)
        url = f"{parts.scheme}://{ListenAddress(peer.host, parts.port or 0)}"
        return Source(url, token, str(peer), self.zone)
