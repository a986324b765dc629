"""The physical bound of a distribution, from the goodput of the rig's own links."""

from collections.abc import Sequence
from dataclasses import dataclass

from scripts.bench.rigs.cluster import Cluster, Host, Link
from scripts.bench.rigs.goodput import goodputs


@dataclass(frozen=True, slots=True)
class Goodput:
    """Bytes a second that one TCP stream carries: out of the `origin`, and for each node up and down.

    `own`: what a node's own link to the mirrors carries (0: they share the origin's).
    """

    origin: float
    nodes: tuple[Link, ...]
    own: float = 0.0

    def bound(self, size: int) -> float:
        """Seconds that `size` bytes take to every node at least, whatever the algorithm: they must leave the origin
        once, enter the slowest node once, and leave somebody once for each node.

        With own links it is no bound, but what pulling one copy over all of them, and then exchanging it, takes.
        """
        count = len(self.nodes)
        slowest = min(link.down for link in self.nodes)
        if self.own:
            return size / (count * self.own) + size / slowest
        uploads = self.origin + sum(link.up for link in self.nodes)
        return max(size / self.origin, size / slowest, count * size / uploads)


def measure(cluster: Cluster, origin: Host, peers: Sequence[Host]) -> Goodput:
    """Measure the origin's link, or the first node's own to it, and one node of each kind against a host that nothing
    holds back."""
    probe = cluster.host("probe", None)
    own = cluster.by_own_link.get(peers[0].name)
    kinds = {host.link: host for host in peers if host.link is not None}
    up = goodputs([(origin, own or probe), *((host, probe) for host in kinds.values())])
    down = goodputs([(probe, host) for host in kinds.values()])
    links = {kind: Link(u, d) for kind, u, d in zip(kinds, up[1:], down, strict=True)}
    nodes = tuple(links[host.link] for host in peers if host.link is not None)
    return Goodput(len(nodes) * up[0], nodes, up[0]) if own else Goodput(up[0], nodes)
