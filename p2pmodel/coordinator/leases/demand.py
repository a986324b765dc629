"""What a peer demands of its coordinator, what the coordinator grants, and the nodes that get nothing from peers."""

from dataclasses import dataclass

MAX_CUT_OFF = 100
"""Most names that are remembered of a swarm."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """A piece that failed its check, and the IP address of the peer that sent it."""

    piece: int
    peer: str


@dataclass(frozen=True, slots=True)
class Demand:
    """A peer's state. `scarce`: pieces that neither it nor any peer it is connected to has.

    `from_seeders`: it downloads leased pieces from a seeder, else from a mirror. `want` is how many leases it would
    hold at a time (0: it cannot download now, and returns its leases). `origin_bytes` is what it has downloaded from
    mirrors so far.
    """

    scarce: int
    from_seeders: bool
    want: int = 1
    origin_bytes: int = 0
    leased: int = 0
    """Leases it holds in its own view: adopted by a coordinator that has no record of the peer."""
    complaints: tuple[Complaint, ...] = ()
    """The last pieces that failed their check."""
    cut_off: bool = False
    """Whether it gets nothing from its peers and downloads from mirrors without leases. For display only."""
    held: int = 0
    """Pieces that it serves to nodes of other zones."""
    token: str = ""
    """What these nodes need to pull pieces from it."""
    unreachable: tuple[str, ...] = ()
    """Addresses of nodes of other zones that lately did not deliver."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """A piece that a node pulls from a node of another zone, which serves it over HTTP at `address`, ADDRESS:PORT.
    Without a host that is the one at which the coordinator is reached."""

    piece: int
    address: str
    token: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """A coordinator's grant to a peer: the pieces that this peer may download.

    `peers` is how many peers are served in all, `origin_bytes` what these have downloaded from mirrors. `refused`: the
    budget for mirrors is used up.
    """

    pieces: tuple[int, ...] = ()
    peers: int = 1
    origin_bytes: int = 0
    refused: bool = False
    crossings: tuple[Crossing, ...] | None = None
    """Pieces to pull from nodes of other zones. None: this peer takes no part in that."""


class CutOffNodes:
    """The names that nodes gave themselves, in the order in which they were cut off; kept as long as the swarm is."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def note(self, peer: str, node: str) -> None:
        """The node `node`, which is `peer` in the swarm, is cut off."""
        if peer in self._names or len(self._names) < MAX_CUT_OFF:
            self._names[peer] = node

    @property
    def names(self) -> list[str]:
        """Their names."""
        return list(self._names.values())
