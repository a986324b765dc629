"""T* of a roll-out: the time that its links need at least, and the times of its nodes in multiples of that. Pure.

As for the benchmarks: the bytes leave the source once, enter the slowest node once, and are uploaded once for each
node. The source is the mirrors while a copy comes from them, and the seeders. What is not known is not guessed: then
there is no bound, and `unknown` says which rate is missing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from p2pmodel.coordinator.rollout.links import LinkRate, together
from p2pmodel.coordinator.rollout.nodes import RolloutNode


@dataclass(frozen=True, slots=True)
class BoundPart:
    """One link that all bytes must pass: what it is, its rate in bytes/s and where that is known from, and seconds."""

    link: str
    rate: int
    source: str
    seconds: float


@dataclass(frozen=True, slots=True)
class RolloutBound:
    """T* in seconds, the largest of `parts`, and the gate of the files in multiples of it: half of the nodes, 95 %, and
    the last one. `unknown`: why there is none; then no number is there."""

    seconds: float | None = None
    parts: tuple[BoundPart, ...] = ()
    p50: float | None = None
    p95: float | None = None
    last: float | None = None
    unknown: str = ""


def rollout_bound(
    nodes: Sequence[RolloutNode], times: tuple[float | None, float | None, float | None]
) -> RolloutBound | None:
    """The bound of a roll-out to `nodes`, with these `times` of the gate of the files (p50, p95, last); None where no
    node needs a byte. Nodes that failed take no part."""
    needing = [node for node in nodes if node.phase != "failed" and _need(node) > 0]
    if not needing:
        return None
    parts = list(_parts(nodes, needing))
    unknown = [part for part in parts if isinstance(part, str)]
    if unknown:
        return RolloutBound(unknown=f"the rate of {' and of '.join(unknown)} is not known")
    known = tuple(part for part in parts if isinstance(part, BoundPart))
    seconds = max(part.seconds for part in known)
    if times[2] is not None and times[2] < seconds:
        return RolloutBound(unknown="the last node was faster than the known rates allow")
    p50, p95, last = (None if time is None else time / seconds for time in times)
    return RolloutBound(seconds, known, p50, p95, last)


def _parts(nodes: Sequence[RolloutNode], needing: Sequence[RolloutNode]) -> Iterator[BoundPart | str]:
    """The links of a roll-out; of one without a known rate what it is."""
    copy = max(map(_need, needing))
    mirrors = _mirrors(nodes)
    uplinks = [node.links.up for node in nodes if node.links.mirroring]
    if mirrors is not None:
        yield _part("the mirrors", mirrors[1], mirrors[0])
    if uplinks:
        yield _part("the uplink of the seeders", together(uplinks), copy)
    elif mirrors is None:
        yield "the uplink of the seeders"
    slowest = [(node, node.links.down) for node in needing]
    if unknown := [node.name for node, down in slowest if down is None]:
        yield f"the link to {unknown[0]}" + (f" and {len(unknown) - 1} more nodes" if len(unknown) > 1 else "")
    else:
        node, down = max(slowest, key=lambda each: _need(each[0]) / each[1].rate if each[1] else 0.0)
        yield _part(f"the link to {node.name}", down, _need(node))
    sources = [node.links.up for node in nodes] + ([mirrors[1]] if mirrors else [])
    if (every := together(sources)) is not None:
        yield _part("all uplinks together", every, sum(map(_need, needing)))


def _mirrors(nodes: Sequence[RolloutNode]) -> tuple[int, LinkRate | None] | None:
    """Bytes that had to come from the mirrors, one copy at most, and their rate to the nodes that took them; None if no
    byte came from them."""
    mirroring = [node for node in nodes if node.links.mirroring]
    taking = mirroring or [node for node in nodes if node.bytes.origin]
    if not taking:
        return None
    model = max(node.total for node in nodes)
    size = model if mirroring else min(model, sum(node.bytes.origin for node in nodes))
    return size, together(node.links.mirrors for node in taking)


def _part(link: str, known: LinkRate | None, size: int) -> BoundPart | str:
    return link if known is None else BoundPart(link, known.rate, known.source, size / known.rate)


def _need(node: RolloutNode) -> int:
    """Bytes that the node must receive."""
    return max(0, node.total - node.bytes.cache)
