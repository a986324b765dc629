"""How far this node is with one snapshot, as roll-outs count it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from p2pmodel.coordinator.rollout.links import NO_LINKS, NodeLinks
from p2pmodel.coordinator.rollout.nodes import (
    GATES,
    PASSED_IN,
    PHASES,
    Gate,
    NodeBytes,
    NodeFailure,
    NodePhase,
    NodeReport,
)
from p2pmodel.core.progress.progress import Phase, Progress
from p2pmodel.core.progress.views import EngineState, TransferView
from p2pmodel.errors import P2PModelError

_PHASES: Mapping[Phase, NodePhase] = {
    "finding": "starting",
    "checking": "starting",
    "hashing": "downloading",
    "mirroring": "downloading",
    "downloading": "downloading",
    "verifying": "downloading",
    "publishing": "downloading",
    "seeding": "files_ready",
    "done": "files_ready",
}
NOT_LOADED = NodeFailure("not_loaded", "the inference engine could not load the model", "see its log on the node")
_BEFORE_FILES = PHASES[: PHASES.index("files_ready")]


@dataclass(frozen=True, slots=True)
class RolloutStanding:
    """The phase, and the last progress of the transfer. `passed`: when each gate was passed, on a monotonic clock."""

    phase: NodePhase
    progress: Progress
    failure: NodeFailure | None = None
    passed: Mapping[Gate, float] = field(default_factory=dict)

    def after(self, before: "RolloutStanding | None", now: float) -> "RolloutStanding":
        """This standing, which follows `before`, with the gates that it passes `now`. A node that downloads has passed
        none."""
        known = dict(before.passed if before else self.passed) if self.phase not in _BEFORE_FILES else {}
        if self.phase != "failed":
            reached = PHASES.index(self.phase)
            known |= {gate: now for gate in GATES if gate not in known and reached >= PHASES.index(PASSED_IN[gate])}
        return replace(self, passed=known)

    @property
    def essence(self) -> object:
        """The part that a coordinator must know at once; the rest are numbers."""
        return self.phase, self.failure, frozenset(self.passed)

    @property
    def settled(self) -> bool:
        """Whether no further change is expected."""
        return self.phase not in _BEFORE_FILES

    def report(self, now: float, why: str = "", links: NodeLinks = NO_LINKS) -> NodeReport:
        """The message to a coordinator."""
        return NodeReport(
            phase=self.phase,
            ages={gate: now - passed for gate, passed in self.passed.items()},
            total=self.progress.total,
            bytes=source_bytes(self.progress),
            rate=self.progress.download_rate if self.phase == "downloading" else 0,
            why=why,
            failure=self.failure,
            links=links,
        )


def standing_of_progress(progress: Progress, *, complete: bool = False) -> RolloutStanding:
    """The standing of a fetch in this process."""
    phase = _PHASES[progress.phase]
    if complete:
        phase = "files_ready"
    elif phase == "files_ready":
        phase = "downloading"  # not yet reported as ready
    return RolloutStanding(phase, progress)


def standing_of_view(view: TransferView) -> RolloutStanding:
    """The standing of a transfer of a daemon."""
    progress = view.progress
    if view.error is not None:
        return RolloutStanding("failed", progress, NodeFailure(view.error.code, view.error.message, view.error.hint))
    if view.complete:
        return standing_of_engine(view.engine, view.completion or progress)
    if view.state in ("queued", "paused"):
        return RolloutStanding("starting", progress)
    return standing_of_progress(progress)


def standing_of_engine(state: EngineState, progress: Progress, failure: NodeFailure = NOT_LOADED) -> RolloutStanding:
    """The standing of a complete snapshot. `failure`: why it is not loaded, where the engine failed."""
    if state == "failed":
        return RolloutStanding("failed", progress, failure)
    return RolloutStanding("files_ready" if state == "none" else state, progress)


def failure_of(error: P2PModelError) -> NodeFailure:
    """`error` as it is reported."""
    return NodeFailure(error.code, error.what, error.hint)


def source_bytes(progress: Progress) -> NodeBytes:
    """The bytes of a transfer by source."""
    peers = max(0, progress.from_peers - progress.from_seeders)
    return NodeBytes(progress.from_mirrors, progress.from_seeders, peers, progress.from_cache)


def numbers_of(progress: Progress) -> NodeReport | None:
    """The numbers that go with a demand for leases; None while the size of the snapshot is unknown."""
    if not progress.total:
        return None
    rate = progress.download_rate
    return NodeReport("downloading", total=progress.total, bytes=source_bytes(progress), rate=rate)
