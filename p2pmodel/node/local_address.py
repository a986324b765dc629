"""The addresses by which other machines reach this node: as advertised, or those of its routes and interfaces."""

import errno
import socket
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from p2pmodel.config.sections.swarm import LOOPBACK, SwarmSettings
from p2pmodel.config.settings import Settings
from p2pmodel.core.network.addresses import ListenAddress, is_reachable
from p2pmodel.core.network.interfaces import host_addresses
from p2pmodel.core.notes import Note, warning

PEER_PORT = 6881
"""Port for peers; where it is taken, any free one."""
PRIVATE_PORT = 6883
"""Port for peers of private swarms; where it is taken, any free one."""
PRIVATE_SOURCE_PORT = 6884
"""Port of the HTTP source of private snapshots; where it is taken, any free one."""
SOURCE_PORT = 6882
"""Port of a daemon's HTTP source for leaseholders; where it is taken, any free one."""
_LOOPBACK = "127.0.0.1"
_ANYWHERE = ("http://192.0.2.1", "http://[2001:db8::1]")
"""Addresses of no machine (RFC 5737, 3849): the route to them is the default route."""


def local_address(url: str) -> str | None:
    """The local address of the route to the host of `url`; None without a route. Resolves the name, sends nothing."""
    try:
        parts = urlsplit(url)
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except (OSError, ValueError):
        return None


def reachable_hosts(host: str) -> tuple[str, ...]:
    """The addresses by which other machines reach a listener at `host`; for a wildcard address at least one.

    Of each family the address of the default route; without such a route all of the family. The wildcard of IPv6
    stands for both families.
    """
    if not ListenAddress(host, 0).unspecified:
        return (host,)
    mine, found = host_addresses(), list[str]()
    for six, anywhere in enumerate(_ANYWHERE[: 2 if ":" in host else 1]):
        default = local_address(anywhere)
        family = (
            [default] if default and is_reachable(default) else [each for each in mine if (":" in each) == bool(six)]
        )
        found.extend(family)
    return tuple(dict.fromkeys(found)) or (_LOOPBACK,)


def peer_addresses(swarm: SwarmSettings, bound: ListenAddress) -> tuple[ListenAddress, ...]:
    """Where peers reach the node that listens for them at `bound`: as advertised, else by its own addresses."""
    advertised = tuple(each.at(bound.port) for each in swarm.advertised)
    return advertised or tuple(ListenAddress(host, bound.port) for host in reachable_hosts(bound.host))


def with_peer_address(settings: Settings, own: ListenAddress | None = None) -> Settings:
    """`settings` with `swarm.listen`: as configured, else the address that other nodes reach.

    Without a configured address that is the host of `own`, the coordinator in this process, or the local address of
    the route to the first coordinator on another machine; loopback where there is neither. Blocks for name lookups.
    """
    if settings.swarm.listen is not None:
        return settings
    host = own.host if own is not None and not own.loopback else _towards(settings.coordinators)
    listen = str(ListenAddress(host, free_port(host, PEER_PORT)))
    return settings.model_copy(update={"swarm": settings.swarm.model_copy(update={"listen": listen})})


def other_networks(settings: Settings) -> Iterator[Note]:
    """A warning for each coordinator that is reached from an address at which this node does not listen for peers.

    An empty result where the address was configured or is advertised, or where it stands for all. Blocks for lookups.
    """
    listen = ListenAddress.parse(settings.swarm.listen or LOOPBACK)
    if listen.unspecified or settings.swarm.advertise:
        return
    for url in settings.coordinators:
        own = local_address(url)
        if own and own != listen.host and not ListenAddress(own, 0).loopback:
            wildcard = "[::]" if ":" in own + listen.host else "0.0.0.0"  # noqa: S104  named, not listened on
            text = (
                f"the coordinator {url} is reached from {own}, but peers reach this node at {listen.host} only; "
                f"--swarm-listen {wildcard}:{PEER_PORT} listens on both networks"
            )
            yield warning("other_network", text, coordinator=url, address=own)


def _towards(coordinators: Iterable[str]) -> str:
    found = (local_address(url) for url in coordinators)
    return next((host for host in found if host and not ListenAddress(host, 0).loopback), _LOOPBACK)


def free_port(host: str, preferred: int) -> int:
    """`preferred`, or 0 where another program has it. On loopback always 0: other machines need no fixed port there."""
    if ListenAddress(host, 0).loopback:
        return 0
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, preferred))
        except OSError as error:
            return 0 if error.errno == errno.EADDRINUSE else preferred
    return preferred
