"""One node of a roll-out: what it reports, what the coordinator knows of it, and how a report changes that. Pure.

Invariants, to re-check when editing:
1. A gate that a node has passed keeps the time of the first passing.
2. A report on behalf of a node (by a launcher) never moves the phase back, except to try a failed node again, and it
   fails a node only while the node itself is silent.
3. A node that has all files is as far as its gates: a command that loads a model and ends has loaded it.
4. What comes with a demand for leases changes numbers alone, and moves a node at most to `downloading`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, get_args

from p2pmodel.coordinator.rollout.links import NO_LINKS, NodeLinks

NodePhase = Literal[
    "expected",
    "preflight",
    "starting",
    "downloading",
    "files_ready",
    "loading",
    "loaded",
    "answered",
    "failed",
]
"""`expected`: nothing was heard of it; `starting`: it looks the snapshot up, or its program starts."""
Gate = Literal["files", "loaded", "answered"]
"""`files`: all files are verified and visible; `loaded`: the model is on the device; `answered`: its first token."""

PHASES: tuple[NodePhase, ...] = get_args(NodePhase)
GATES: tuple[Gate, ...] = get_args(Gate)
PASSED_IN: Mapping[Gate, NodePhase] = MappingProxyType(
    {"files": "files_ready", "loaded": "loaded", "answered": "answered"}
)
"""The phase that a node enters when it passes a gate."""
SILENCE = 15.0
"""Seconds without a report of the node itself after which a launcher may report that it has failed."""

_RANK = {phase: rank for rank, phase in enumerate(PHASES)} | {"failed": -1}


@dataclass(frozen=True, slots=True)
class PreflightCheck:
    """One check before a node starts: its name, whether it passed, and what was found."""

    name: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class NodeFailure:
    """Why a node failed: code, message and hint as in the error tree."""

    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class NodeBytes:
    """Verified bytes of a node by source: the mirrors, seeders over HTTP, other peers, and its own cache."""

    origin: int = 0
    seeder: int = 0
    peers: int = 0
    cache: int = 0

    @property
    def received(self) -> int:
        """Bytes that came over the network."""
        return self.origin + self.seeder + self.peers


@dataclass(frozen=True, slots=True)
class GateTime:
    """When a node passed a gate: seconds since the roll-out began, and seconds since 1970."""

    seconds: float
    wall: float


@dataclass(frozen=True, slots=True)
class NodeReport:
    """The state of a node as it is sent. What is absent (None) stays as it was.

    `ages`: for each gate passed, how many seconds ago; so a late report, or a clock that is wrong, does no harm.
    `why`: what bounds the node's rate.
    """

    phase: NodePhase
    ages: Mapping[Gate, float] = field(default_factory=dict)
    total: int = 0
    """Bytes of the requested files; 0 while unknown."""
    bytes: NodeBytes | None = None
    rate: int = 0
    why: str | None = None
    failure: NodeFailure | None = None
    preflight: tuple[PreflightCheck, ...] | None = None
    links: NodeLinks = NO_LINKS


@dataclass(frozen=True, slots=True)
class RolloutNode:
    """What the coordinator knows of a node. `listed`: the roll-out expects it."""

    name: str
    listed: bool = True
    phase: NodePhase = "expected"
    gates: Mapping[Gate, GateTime] = field(default_factory=dict)
    total: int = 0
    bytes: NodeBytes = NodeBytes()
    rate: int = 0
    why: str = ""
    failure: NodeFailure | None = None
    preflight: tuple[PreflightCheck, ...] = ()
    heard: float | None = None
    """When the node itself reported last, in seconds since the roll-out began; None: never."""
    links: NodeLinks = NO_LINKS

    def ready(self, gate: Gate) -> bool:
        """Whether it has passed `gate`, and has neither failed nor begun to download again since."""
        return gate in self.gates and _RANK[self.phase] >= _RANK["files_ready"]

    @property
    def share(self) -> float:
        """The part of its bytes that is here, 0 to 1."""
        if "files" in self.gates:
            return 1.0
        return min(1.0, (self.bytes.received + self.bytes.cache) / self.total) if self.total else 0.0


@dataclass(frozen=True, slots=True)
class RolloutMoment:
    """A moment: seconds since the roll-out began, and seconds since 1970."""

    seconds: float
    wall: float

    def before(self, age: float) -> GateTime:
        """The time `age` seconds earlier; nothing is before the roll-out."""
        age = min(age, self.seconds)
        return GateTime(self.seconds - age, self.wall - age)


def told_by_node(node: RolloutNode, report: NodeReport, at: RolloutMoment) -> RolloutNode:
    """`node` after a report of its own."""
    failed = report.phase == "failed"
    changed = _with_content(node, report, at)
    return replace(
        changed,
        phase=_furthest(report.phase, changed.gates),
        failure=(report.failure or NodeFailure("failed", "it failed without saying why")) if failed else None,
        heard=at.seconds,
    )


def told_on_behalf(node: RolloutNode, report: NodeReport, at: RolloutMoment) -> RolloutNode:
    """`node` after a report of a launcher."""
    changed = _with_content(node, report, at)
    if report.phase == "failed":
        if node.heard is not None and at.seconds - node.heard < SILENCE:
            return changed
        return replace(changed, phase="failed", rate=0, failure=report.failure or NodeFailure("failed", "no reason"))
    tried_again = node.phase == "failed" and report.phase != "expected"
    if tried_again or _RANK[report.phase] > _RANK[node.phase]:
        return replace(changed, phase=report.phase, failure=None)
    return changed


def told_with_demand(node: RolloutNode, report: NodeReport, at: RolloutMoment) -> RolloutNode:
    """`node` after what came with its demand for leases."""
    changed = replace(_numbers(node, report), heard=at.seconds)
    if _RANK[node.phase] < _RANK["downloading"] or node.phase == "failed":
        return replace(changed, phase="downloading", failure=None)
    return changed


def _furthest(phase: NodePhase, gates: Iterable[Gate]) -> NodePhase:
    if _RANK[phase] < _RANK["files_ready"]:
        return phase
    return max((phase, *(PASSED_IN[gate] for gate in gates)), key=_RANK.__getitem__)


def _with_content(node: RolloutNode, report: NodeReport, at: RolloutMoment) -> RolloutNode:
    gates = dict(node.gates)
    for gate in GATES:
        passed = gate in report.ages or _RANK[report.phase] >= _RANK[PASSED_IN[gate]]
        if passed and gate not in gates:
            gates[gate] = at.before(report.ages.get(gate, 0.0))
    changed = _numbers(node, report)
    preflight = node.preflight if report.preflight is None else report.preflight
    return replace(changed, gates=gates, preflight=preflight, links=node.links.updated(report.links))


def _numbers(node: RolloutNode, report: NodeReport) -> RolloutNode:
    if report.bytes is None:
        return node
    changed = replace(node, total=report.total or node.total, bytes=report.bytes, rate=report.rate)
    return replace(changed, why=node.why if report.why is None else report.why)
