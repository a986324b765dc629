"""Which engine of a node connects to which engine of a peer that was named by the address of its first engine.

Trackers list the engines that fit; a peer that is named alone says in its peer id how many it has. They listen at
`further_port`. Pure: time is passed in.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.network.connections import PeerConnection
from p2pmodel.errors import InvalidInput
from p2pmodel.swarm.peer_ids import EngineNumber, engine_number

FURTHER = 3
"""The engine with number n > 0 listens at the port of the first one plus FURTHER + n: 6882 to 6884 are in use."""
ANSWERS_WITHIN = 30.0
"""Seconds in which the first connection to a named peer must exist."""
RETRY_AFTER = 3.0
"""Seconds after which an engine without a connection to the peer's host tries its first engine."""
_HIGHEST_PORT = 65535

Dial = tuple[int, str, int]
"""Number of our engine, and the address to connect to."""


def further_port(first: int, number: int) -> int:
    """The port of engine `number` of a node with its first engine at `first`; 0 (any) beyond the last port."""
    port = first + FURTHER + number if number else first
    return port if port <= _HIGHEST_PORT else 0


@dataclass(slots=True)
class _Named:
    since: float
    dialled: float | None = None
    engines: set[int] = field(default_factory=set)


class NamedPeers:
    """The named peers of one torrent, for a node with `count` engines. The first engine connects to them anyway."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._named: dict[tuple[str, int], _Named] = {}

    @property
    def pending(self) -> bool:
        """Whether `due` may name further connections."""
        return bool(self._named)

    def name(self, host: str, port: int, now: float) -> None:
        """The first engine connects to this peer."""
        self._named.setdefault((host, port), _Named(now))

    def due(self, connections: Sequence[Sequence[PeerConnection]], now: float) -> list[Dial]:
        """What to connect to now, by the `connections` of each engine."""
        found: list[Dial] = []
        for (host, port), named in list(self._named.items()):
            if named.dialled is not None:
                if now - named.dialled >= RETRY_AFTER:
                    alone = (n for n in sorted(named.engines) if not any(_is_at(host, c) for c in connections[n]))
                    found += [(number, host, port) for number in alone]
                    del self._named[host, port]
                continue
            peer = next((c for each in connections for c in each if _is_at(host, c, port)), None)
            if peer is not None:
                dials = list(self._dials(host, port, peer))
                named.dialled, named.engines = now, {number for number, _, _ in dials}
                found += dials
            elif now - named.since >= ANSWERS_WITHIN:
                del self._named[host, port]
        return found

    def _dials(self, host: str, port: int, peer: PeerConnection) -> Iterator[Dial]:
        count = engine_number(bytes.fromhex(peer.peer_id)).count
        for number in range(self._count):
            own = EngineNumber(number, self._count)
            fitting = [other for other in range(count) if own.has_use_for(EngineNumber(other, count))]
            if peer.progress >= 1:  # each of its engines has all pieces
                fitting = [fitting[number // count % len(fitting)]]
            for other in fitting:
                if (number, other) != (0, 0):
                    yield number, host, further_port(port, other)


def _is_at(host: str, connection: PeerConnection, port: int | None = None) -> bool:
    try:
        found = ListenAddress.parse(connection.address)
    except InvalidInput:
        return False
    return found.host == host and port in (None, found.port)
