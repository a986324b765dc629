"""The URLs of a listener of this machine as other machines reach it."""

from urllib.parse import urlsplit

from p2pmodel.config.settings import Settings
from p2pmodel.core.network.addresses import AdvertisedAddress, ListenAddress
from p2pmodel.node.local_address import reachable_hosts


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
