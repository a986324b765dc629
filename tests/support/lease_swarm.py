"""Honest nodes with one seeder, beside peers that lease and never pull: a model of the leases, without any network."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from p2pmodel.coordinator.leases.demand import Demand
from p2pmodel.coordinator.leases.leases import Leases
from p2pmodel.core.content.bitfield import bits_of

STEP = 0.02
PIECE = 1 << 17
SPREAD = 0.15
"""Seconds in which a piece reaches all honest nodes."""
HONEST_ADDRESS = "10.0.0.1"
RATE_OF = 2.0
"""Seconds over which a node measures its rate."""


@dataclass
class HonestNode:
    """A node: its pieces, its pulls (bytes left by piece), and the bytes a second of its link."""

    name: str
    link: float
    have: int = 0
    pulls: dict[int, float] = field(default_factory=dict)
    came: list[float] = field(default_factory=list)
    next_message: float = 0.0
    done: float | None = None


@dataclass(frozen=True, slots=True)
class HostilePeers:
    """`count` peers that ask for everything and pull nothing. `flapping` of them come back under a new name every
    1.2 seconds. At one `address`, or each at its own if that is empty."""

    count: int = 40
    address: str = "10.6.6.6"
    flapping: int = 10

    def address_of(self, number: int) -> str:
        """The address of one of them."""
        return self.address or f"10.6.0.{number}"


class LeaseSwarm:
    """A snapshot of `pieces`, a seeder of `rate` bytes a second, and a node for each of `links`.

    The hostile peers are there first. `seconds` and `copies` are of the honest nodes.
    """

    def __init__(self, pieces: int, hostile: HostilePeers, *, rate: float = 4e6, links: Sequence[float]) -> None:
        self.leases = Leases(pieces, pieces * PIECE)
        self.nodes = [HonestNode(f"node{n}", link) for n, link in enumerate(links)]
        self._all = (1 << pieces) - 1
        self._pieces = pieces
        self._rate = rate
        self._hostile = hostile
        self._visits = [0] * hostile.count
        self._turn = 0
        self._spreading: list[tuple[float, int]] = []
        self._visible = 0
        self._pulled = 0.0
        self.now = 0.0

    @property
    def copies(self) -> float:
        """Copies that the seeder sent."""
        return self._pulled / (self._pieces * PIECE)

    def run(self, limit: float = 600.0) -> float:
        """Seconds until all nodes have everything."""
        began = 1.5 if self._hostile.count else 0.0
        for node in self.nodes:
            node.next_message = began
        while self.now < limit and any(node.done is None for node in self.nodes):
            if self._hostile.count and self.now >= self._turn * 0.2:
                self._haunt()
            self._ask()
            self._pull()
            self._spread()
            self.now += STEP
        return max(limit if node.done is None else node.done for node in self.nodes) - began

    def _haunt(self) -> None:
        self._turn += 1
        for number in range(self._hostile.count):
            name = f"hostile{number}-{self._visits[number]}"
            if number < self._hostile.flapping and self._turn % 6 == 0:
                self.leases.leave(name)
                self._visits[number] += 1
                continue
            reported = self._all if number % 7 == 1 else 0
            demand = Demand(self._all, number % 3 > 0, want=1 << 40, origin_bytes=1 << 60, leased=reported)
            self.leases.update(name, demand, self.now, address=self._hostile.address_of(number))

    def _ask(self) -> None:
        for node in self.nodes:
            if node.done is None and self.now >= node.next_message:
                node.next_message = self.now + 1.0
                rate = sum(came > self.now - RATE_OF for came in node.came) / RATE_OF
                scarce = self._all & ~node.have & ~self._visible
                demand = Demand(scarce, True, want=min(2 + int(rate / 2), 64), leased=bits_of(node.pulls))
                self.leases.update(node.name, demand, self.now, address=HONEST_ADDRESS)
        grants = self.leases.grant(self.now)
        for node in self.nodes:
            for piece in grants[node.name].pieces if node.name in grants else ():
                if not (node.have | self._visible) >> piece & 1:
                    node.pulls.setdefault(piece, float(PIECE))

    def _pull(self) -> None:
        active = sum(len(node.pulls) for node in self.nodes)
        for node in self.nodes:
            for piece in list(node.pulls):
                moved = min(self._rate / active, node.link / len(node.pulls)) * STEP
                self._pulled += moved
                node.pulls[piece] -= moved
                if node.pulls[piece] <= 0:
                    del node.pulls[piece]
                    node.have |= 1 << piece
                    node.came.append(self.now)
                    node.next_message = min(node.next_message, self.now + 0.05)
                    self._spreading.append((self.now + SPREAD, piece))

    def _spread(self) -> None:
        while self._spreading and self._spreading[0][0] <= self.now:
            self._visible |= 1 << self._spreading.pop(0)[1]
        for node in self.nodes:
            for piece in [piece for piece in node.pulls if self._visible >> piece & 1]:
                del node.pulls[piece]
            node.have |= self._visible
            if node.have == self._all and node.done is None:
                node.done = self.now
                self.leases.leave(node.name)
