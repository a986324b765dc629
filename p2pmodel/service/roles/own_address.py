"""The URLs of a listener of this machine as other machines reach it, and those of its HTTP sources for leaseholders."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.tracker.sources import Source
from p2pmodel.core.network.addresses import AdvertisedAddress, ListenAddress
from p2pmodel.node.local_address import local_address, reachable_hosts


def reachable_urls(bound: str, settings: Settings) -> tuple[str, ...]:
    """The base URLs of the listener with the base URL `bound`, the preferred one first.

    They are those of `http.advertise`, also for a listener on loopback: a proxy or a forwarded port is in front of it
    then. Else they have the hosts of `swarm.advertise`, else the host that it listens on; on all addresses, those of
    this machine. May block for a moment.
    """
    parts = urlsplit(bound)
    port, host = parts.port or 80, parts.hostname or ""
    if settings.http.advertise:
        addresses = [each.at(port) for each in map(AdvertisedAddress.parse, settings.http.advertise)]
    elif settings.swarm.advertise and not ListenAddress(host, port).loopback:
        addresses = [ListenAddress(each.host, port) for each in settings.swarm.advertised]
    else:
        addresses = [ListenAddress(each, port) for each in reachable_hosts(host)]
    return tuple(f"{parts.scheme}://{address}" for address in addresses)


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
