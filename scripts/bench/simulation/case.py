"""What is simulated: who takes part, over which links, and what goes wrong."""

from dataclasses import dataclass

from p2pmodel.core.layout import Layout, piece_length_for
from scripts.bench.distribution.bound import Goodput
from scripts.bench.distribution.kills import Kill
from scripts.bench.rigs.cluster import Link

SHARDS = 4
SLOWER = 10
"""How many times slower the slow quarter of a mixed swarm is."""
MOST_CELLS = 25_000_000
"""Nodes times pieces: each is some ten bytes of memory, and a transfer."""


@dataclass(frozen=True, slots=True)
class Delays:
    """Seconds that things take beside the transfers, as seen in the rig on an idle machine."""

    start: float = 0.5
    """Within which all nodes announce themselves."""
    dial: float = 0.2
    word: float = 0.005
    """From a peer to its coordinator, or back."""
    request: float = 0.01
    """Until a source answers a ranged request."""
    check: float = 0.02
    """From a piece's last byte until its node knows it is right."""
    spread: float = 0.1
    """From then until neighbours ask for it."""
    publish: float = 0.3
    """From the last piece until the snapshot is there."""


@dataclass(frozen=True, slots=True)
class Case:
    """One distribution. Rates are bytes a second, `size` is in bytes; without `leases` the seeder is as any peer."""

    size: int
    seeder: float
    mirror: float
    links: tuple[Link, ...]
    zones: int = 1
    kill: Kill | None = None
    leases: bool = True
    seed: int = 0
    coarser: int = 1
    """How many times longer than the product's the pieces are at least."""
    delays: Delays = Delays()

    @property
    def nodes(self) -> int:
        """How many want the snapshot."""
        return len(self.links)

    @property
    def bound(self) -> float:
        """T*: seconds that no algorithm can beat."""
        return Goodput(self.seeder, self.links).bound(self.size)

    def zone_of(self, node: int) -> int:
        """Nodes come from all zones in turn; the sources are in zone 0."""
        return node % self.zones if node < self.nodes else 0

    @property
    def piece_length(self) -> int:
        """The product's, in bytes."""
        return piece_length_for(self.size)

    def layout(self) -> Layout:
        """The pieces: the product's, or so much longer that nodes times pieces stay below `MOST_CELLS`."""
        length = self.piece_length * self.coarser
        while self.nodes * (self.size // length) > MOST_CELLS:
            length *= 2
        shard = self.size // SHARDS
        sizes = [shard] * (SHARDS - 1) + [self.size - shard * (SHARDS - 1)]
        return Layout([(f"model-{number}", size) for number, size in enumerate(sizes)], length)


def links_of(count: int, up: float, down: float, *, mixed: bool) -> tuple[Link, ...]:
    """The links of `count` nodes, the last quarter of them slow if `mixed`."""
    slow = count // 4 if mixed else 0
    return (Link(up, down),) * (count - slow) + (Link(up / SLOWER, down / SLOWER),) * slow
