"""The addresses by which other machines reach this node: as advertised, or those of its routes and interfaces."""

import errno
import ipaddress
import math
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from urllib.parse import urlsplit

from p2pmodel.config.sections.swarm import LOOPBACK, SwarmSettings
from p2pmodel.config.settings import Settings
from p2pmodel.core.network.addresses import ListenAddress, is_reachable
from p2pmodel.core.notes import Note, warning

PEER_PORT = 6881
"""Port for peers; where it is taken, any free one."""
PRIVATE_PORT = 6883
"""Port for peers of private swarms; where it is taken, any free one."""
PRIVATE_SOURCE_PORT = 6884
"""Port of the HTTP source of private snapshots; where it is taken, any free one."""
SOURCE_PORT = 6882
"""Port of a daemon's HTTP source for leaseholders; where it is taken, any free one."""
ENGINE_RATE = 1.8e9
"""Bytes/s that one engine reaches: its network thread takes 0.56 CPU-seconds a GB at the receiver."""
ENGINE_CORES = 4
"""Cores that keep one engine busy: 2.6 CPU-seconds a GB, of which hashes, disk and workers are the most."""
AUTO_ENGINES = 4
"""Most engines that are chosen: with more the event loop is the busiest thread, near 5 GB/s."""
PIECE_PORT = 6880
"""Port at which a node in a zone serves pieces to other zones; where it is taken, any free one."""
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


def engine_count(swarm: SwarmSettings, *, cores: int, link: float | None) -> int:
    """How many engines a node runs, on a machine with so many `cores` and a `link` of so many bytes/s, if known."""
    if any(each.port is not None for each in swarm.advertised):
        return 1  # peers reach the published port alone, which leads to one of them
    if swarm.engines != "auto":
        return swarm.engines
    return max(1, min(cores // ENGINE_CORES, math.ceil((link or 0) / ENGINE_RATE), AUTO_ENGINES))


def address_notes(settings: Settings) -> Iterator[Note]:
    """Warnings about the addresses for peers. Blocks for lookups."""
    yield from other_networks(settings)
    if settings.swarm.engines in ("auto", 1):
        return
    if any(each.port is not None for each in settings.swarm.advertised):
        text = "one engine runs, not swarm.engines: peers reach a port of swarm.advertise, which leads to one engine"
        yield warning("one_engine", text, engines=settings.swarm.engines)
    elif settings.private.repos:
        text = "private snapshots use one engine, not swarm.engines"
        yield warning("one_engine", text, engines=settings.swarm.engines)


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


_REQUEST = struct.pack("=IHHIIB3x", 20, 22, 0x301, 0, 0, socket.AF_UNSPEC)
"""nlmsghdr (RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP) and rtgenmsg."""
_HEADER = struct.Struct("=IHHII")
_NEW_ADDRESS, _DONE, _ERROR = 20, 3, 2
_ADDRESS_HEADER = 8
_ATTRIBUTE = struct.Struct("=HH")
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_FAMILIES: dict[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 16}


def host_addresses() -> tuple[str, ...]:
    """The addresses by which other machines may reach this one, IPv4 first; empty where the kernel does not tell."""
    with suppress(OSError, AttributeError, struct.error):
        found = dict.fromkeys(address for address in _of_interfaces() if is_reachable(address))
        return tuple(sorted(found, key=lambda address: ":" in address))
    return ()


def _of_interfaces() -> Iterator[str]:
    """From the kernel (netlink, RTM_GETADDR)."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as kernel:
        kernel.settimeout(1.0)
        kernel.send(_REQUEST)
        while True:
            answer = kernel.recv(65536)
            at = 0
            while at + _HEADER.size <= len(answer):
                length, kind, *_ = _HEADER.unpack_from(answer, at)
                if kind in (_DONE, _ERROR) or length < _HEADER.size:
                    return
                if kind == _NEW_ADDRESS:
                    yield from _address(answer[at + _HEADER.size : at + length])
                at += _aligned(length)


def _address(message: bytes) -> Iterator[str]:
    size = _FAMILIES.get(message[0])
    attributes: dict[int, bytes] = {}
    at = _ADDRESS_HEADER
    while at + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, at)
        if length < _ATTRIBUTE.size:
            break
        attributes[kind] = message[at + _ATTRIBUTE.size : at + length]
        at += _aligned(length)
    # On a point-to-point link IFA_ADDRESS is the other end.
    packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS, b"")
    if size == len(packed):
        yield str(ipaddress.ip_address(packed))


def _aligned(length: int) -> int:
    return (length + 3) & ~3
