"""The physical bound of a distribution, from the goodput of the rig's own links."""

from collections.abc import Sequence
from dataclasses import dataclass

from scripts.bench.rigs.cluster import Cluster, Host, Link
from scripts.bench.rigs.goodput import goodputs


@dataclass(frozen=True, slots=True)
class Goodput:
    """Bytes per second of one TCP stream: out of the `origin`, and for each node up and down.

    `own`: the rate of a node's own link to the mirrors (0: the nodes share the origin's link).
    """

    origin: float
    nodes: tuple[Link, ...]
    own: float = 0.0

    def bound(self, size: int) -> float:
        """Seconds that `size` bytes take to every node at least, with any algorithm.

        The bytes must leave the origin once, enter the slowest node once, and be uploaded once for each node. With own
        links it is no bound, but the time to pull one copy over all of them and to exchange it then.
        """
        count = len(self.nodes)
        slowest = min(link.down for link in self.nodes)
        if self.own:
            return size / (count * self.own) + size / slowest
        uploads = self.origin + sum(link.up for link in self.nodes)
        return max(size / self.origin, size / slowest, count * size / uploads)


def measure(cluster: Cluster, origin: Host, peers: Sequence[Host]) -> Goodput:
    """Measure the origin's link, or the first node's own link to it, and one node of each kind.

    The other end is a host without a limit.
    """
    probe = cluster.host("probe", None)
    own = cluster.by_own_link.get(peers[0].name)
    kinds = {host.link: host for host in peers if host.link is not None}
    up = goodputs([(origin, own or probe), *((host, probe) for host in kinds.values())])
    down = goodputs([(probe, host) for host in kinds.values()])
    links = {kind: Link(u, d) for kind, u, d in zip(kinds, up[1:], down, strict=True)}
    nodes = tuple(links[host.link] for host in peers if host.link is not None)
    return Goodput(len(nodes) * up[0], nodes, up[0]) if own else Goodput(up[0], nodes)
