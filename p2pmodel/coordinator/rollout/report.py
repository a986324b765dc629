"""The report of a roll-out: times to each gate, rates, copies from the mirrors, slow nodes, and T*. Pure.

T* is the time that the links of the roll-out need at least; the times of its nodes are given in multiples of it. As for
the benchmarks: the bytes leave the source once, enter the slowest node once, and are uploaded once for each node. The
source is the mirrors while a copy comes from them, and the seeders. A rate that is not known is not guessed: then there
is no bound, and `unknown` names the rate.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median_low
from typing import Any

from p2pmodel.coordinator.rollout.links import LinkRate, together
from p2pmodel.coordinator.rollout.nodes import PHASES, Gate, NodePhase, RolloutNode
from p2pmodel.coordinator.rollout.rollout import RolloutView, passing_times


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


SLOW = 1.5
"""How many times the median a node may take to a gate before it is slow."""
MOST_SLOW = 10
"""Slow nodes that are named."""


@dataclass(frozen=True, slots=True)
class GateReport:
    """One gate. Seconds since the roll-out began until the `first` node, half of the nodes (`p50`), 95 % of them
    (`p95`) and the `last` one had passed it; None while fewer have. `ready_share`: the part of the nodes that is behind
    the gate now."""

    gate: Gate
    passed: int
    nodes: int
    ready_share: float
    first: float | None = None
    p50: float | None = None
    p95: float | None = None
    last: float | None = None


@dataclass(frozen=True, slots=True)
class SlowNode:
    """A node that is late, or behind the others: `seconds` to the last gate (None: not passed), `share` of its bytes
    that is here, and what bounds it."""

    name: str
    phase: NodePhase
    seconds: float | None
    share: float
    rate: int
    why: str


@dataclass(frozen=True, slots=True)
class RolloutReport:
    """The whole report. Rates in bytes a second: `rate` of all nodes now, `average` from the begin to the last node
    with all files, or to now. `origin_copies`: bytes from mirrors by bytes of the model. `slow`: slowest first.
    `bound`: what the links allow; None where no node needs a byte."""

    counts: Mapping[NodePhase, int]
    gates: tuple[GateReport, ...]
    rate: int
    average: float
    model_bytes: int
    received: int
    origin_bytes: int
    origin_copies: float | None
    slow: tuple[SlowNode, ...]
    failed: tuple[str, ...]
    unlisted: tuple[str, ...]
    enough: bool
    bound: RolloutBound | None = None

    @property
    def last_gate(self) -> GateReport:
        """The gate behind which a node is done."""
        return self.gates[-1]


def rollout_report(view: RolloutView) -> RolloutReport:
    """The report of a roll-out as it is in `view`."""
    counted = [node for node in view.nodes if node.listed or not view.spec.nodes]
    model = max((node.total for node in view.nodes), default=0)
    received = sum(node.bytes.received for node in view.nodes)
    origin = sum(node.bytes.origin for node in view.nodes)
    seconds = _seconds_of_transfer(view, counted)
    files = _gate_report(counted, "files")
    return RolloutReport(
        counts={phase: sum(node.phase == phase for node in counted) for phase in PHASES},
        gates=tuple(_gate_report(counted, gate) for gate in view.spec.gates),
        rate=sum(node.rate for node in view.nodes if node.phase == "downloading") if view.open else 0,
        average=received / seconds if seconds > 0 else 0.0,
        model_bytes=model,
        received=received,
        origin_bytes=origin,
        origin_copies=origin / model if model else None,
        slow=_slow(counted, view.spec.last_gate, view.elapsed),
        failed=tuple(node.name for node in counted if node.phase == "failed"),
        unlisted=tuple(node.name for node in view.nodes if not node.listed) if view.spec.nodes else (),
        enough=view.enough_after is not None,
        bound=rollout_bound(counted, (files.p50, files.p95, files.last)),
    )


def percentile(times: Sequence[float], of: int, percent: int) -> float | None:
    """The time by which `percent` of `of` nodes had passed a gate that the nodes with `times` have passed."""
    rank = max(1, -(-of * percent // 100))
    return sorted(times)[rank - 1] if of and len(times) >= rank else None


def ready_curve(view: RolloutView, gate: Gate) -> list[tuple[float, float]]:
    """Steps (seconds, share of the nodes) of the curve of readiness."""
    counted = [node for node in view.nodes if node.listed or not view.spec.nodes]
    times = sorted(passing_times(counted, gate))
    return [(0.0, 0.0), *((seconds, done / len(counted)) for done, seconds in enumerate(times, 1))]


def report_json(report: RolloutReport) -> dict[str, Any]:
    """`report` as values for JSON."""
    return asdict(report)


def _gate_report(nodes: Sequence[RolloutNode], gate: Gate) -> GateReport:
    times, count = passing_times(nodes, gate), len(nodes)
    ready = sum(node.ready(gate) for node in nodes)
    return GateReport(
        gate=gate,
        passed=len(times),
        nodes=count,
        ready_share=ready / count if count else 0.0,
        first=min(times, default=None),
        p50=percentile(times, count, 50),
        p95=percentile(times, count, 95),
        last=percentile(times, count, 100),
    )


def _seconds_of_transfer(view: RolloutView, nodes: Sequence[RolloutNode]) -> float:
    times = passing_times(nodes, "files")
    return max(times) if nodes and len(times) == len(nodes) else view.elapsed


def _slow(nodes: Sequence[RolloutNode], gate: Gate, elapsed: float) -> tuple[SlowNode, ...]:
    """The nodes that took, or have taken so far, more than SLOW times the median of those that are through; before
    half of them are through, those that have less than half of the median's bytes."""
    times = passing_times(nodes, gate)
    through = len(times) * 2 >= len(nodes) > 1
    if through:
        bound = SLOW * median_low(times)
        slow = [node for node in nodes if _taken(node, gate, elapsed) > bound]
    else:
        half = median_low([node.share for node in nodes]) / 2 if nodes else 0.0
        slow = [node for node in nodes if gate not in node.gates and node.share < half]
    slow.sort(key=lambda node: (-_taken(node, gate, elapsed), node.share, node.name))
    return tuple(_slow_node(node, gate) for node in slow[:MOST_SLOW])


def _taken(node: RolloutNode, gate: Gate, elapsed: float) -> float:
    return node.gates[gate].seconds if gate in node.gates else elapsed


def _slow_node(node: RolloutNode, gate: Gate) -> SlowNode:
    seconds = node.gates[gate].seconds if gate in node.gates else None
    why = node.failure.message if node.failure else node.why or ("never heard of" if node.heard is None else "")
    return SlowNode(node.name, node.phase, seconds, node.share, node.rate, why)
