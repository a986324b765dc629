"""The physical bound of a distribution, from the goodput of the rig's own links."""

from collections.abc import Sequence
from dataclasses import dataclass

from scripts.swarm.cluster import Cluster, Host, Link
from scripts.swarm.goodput import goodputs


@dataclass(frozen=True, slots=True)
class Goodput:
    """Bytes a second that one TCP stream carries: out of the `origin`, and for each node up and down."""

    origin: float
    nodes: tuple[Link, ...]

    def bound(self, size: int) -> float:
        """Seconds that `size` bytes take to every node at least, whatever the algorithm: they must leave the origin
        once, enter the slowest node once, and leave somebody once for each node."""
        count = len(self.nodes)
        slowest = min(link.down for link in self.nodes)
        uploads = self.origin + sum(link.up for link in self.nodes)
        return max(size / self.origin, size / slowest, count * size / uploads)


def measure(cluster: Cluster, origin: Host, peers: Sequence[Host]) -> Goodput:
    """Measure the origin's link and one node of each kind against a host that nothing holds back."""
    probe = cluster.host("probe", None)
    kinds = {host.link: host for host in peers if host.link is not None}
    up = goodputs([(origin, probe), *((host, probe) for host in kinds.values())])
    down = goodputs([(probe, host) for host in kinds.values()])
    links = {kind: Link(u, d) for kind, u, d in zip(kinds, up[1:], down, strict=True)}
    return Goodput(up[0], tuple(links[host.link] for host in peers if host.link is not None))
