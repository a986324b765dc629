"""The simulated case: its nodes, their links, and the failures."""

from dataclasses import dataclass

from p2pmodel.core.content.layout import Layout, piece_length_for
from scripts.bench.commands.swarm import SLOWER
from scripts.bench.distribution.bound import Goodput
from scripts.bench.distribution.kills import Kill
from scripts.bench.rigs.cluster import Link

RECEIVING, SENDING = 0.56, 0.41
"""CPU-seconds a GB of a node's busiest thread, the engine's for the network (docs/benchmarks/cpu.md, after)."""
SERVING = 0.18
"""CPU-seconds a GB of a source: `sendfile` to leaseholders."""
NODE_CEILING, SOURCE_CEILING = 1e9 / (RECEIVING + SENDING), 1e9 / SERVING
"""Bytes a second that a node receives and sends at a time, and that a source sends, with a core for each thread."""
SHARDS = 4
MOST_CELLS = 25_000_000
"""Largest number of nodes times pieces: each costs about ten bytes of memory, and a transfer."""


@dataclass(frozen=True, slots=True)
class Delays:
    """Seconds besides the transfers, as measured in the rig on an idle machine."""

    start: float = 0.5
    """The time within which all nodes announce themselves."""
    dial: float = 0.2
    message: float = 0.005
    """From a peer to its coordinator, or back."""
    request: float = 0.01
    """Until a source answers a ranged request."""
    check: float = 0.02
    """From a piece's last byte until it is verified."""
    spread: float = 0.1
    """From then until neighbours request it."""
    publish: float = 0.3
    """From the last piece until the snapshot is published."""


@dataclass(frozen=True, slots=True)
class Case:
    """One distribution. Rates are in bytes per second, `size` in bytes. Without `leases` the seeder is a plain peer."""

    size: int
    seeder: float
    mirror: float
    links: tuple[Link, ...]
    zones: int = 1
    crossings: bool = True
    """Whether nodes pull pieces from nodes of other zones; otherwise through the gateways of their zone."""
    kill: Kill | None = None
    leases: bool = True
    seed: int = 0
    coarser: int = 1
    """Smallest multiple of the product's piece length."""
    delays: Delays = Delays()

    @property
    def nodes(self) -> int:
        """The number of nodes that download the snapshot."""
        return len(self.links)

    @property
    def bound(self) -> float:
        """T*: seconds that no algorithm can beat."""
        return Goodput(self.seeder, self.links).bound(self.size)

    def zone_of(self, node: int) -> int:
        """The zone of a node: nodes are in all zones in turn, the sources in zone 0."""
        return node % self.zones if node < self.nodes else 0

    @property
    def piece_length(self) -> int:
        """The product's piece length, in bytes."""
        return piece_length_for(self.size)

    def layout(self) -> Layout:
        """The pieces. Their length is the product's, or longer so that nodes times pieces stay below `MOST_CELLS`."""
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
