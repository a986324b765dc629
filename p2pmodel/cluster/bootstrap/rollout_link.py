"""The roll-out at the coordinator, as one bootstrap uses it: it begins it, tells what only a launcher knows, and hears.

A coordinator that does not take part costs no roll-out: the hosts are then asked one by one. A node that was heard
lately may stand still all the same: it waits, or it has all bytes, and its report that it is ready is late. Numbers
travel with the demand for leases and end with it; the report needs a coordinator with a free disk. So a node of which
nothing new comes is asked itself (`NodeUpdates`).
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from p2pmodel.cluster.bootstrap.plan import BootstrapPlan, Stage
from p2pmodel.cluster.bootstrap.roster import HostEntry
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.rollouts import RolloutClient
from p2pmodel.coordinator.rollout.links import NO_LINKS, NodeLinks
from p2pmodel.coordinator.rollout.messages import MAX_CHECKS
from p2pmodel.coordinator.rollout.nodes import (
    GATES,
    SILENCE,
    Gate,
    NodeFailure,
    NodePhase,
    NodeReport,
    PreflightCheck,
    RolloutNode,
)
from p2pmodel.coordinator.rollout.rollout import RolloutSpec, RolloutView
from p2pmodel.errors import P2PModelError, Unavailable
from p2pmodel.http_pool import HttpPool

STILL = 4.0
"""Seconds without a further byte, or another phase, after which the numbers of a node are no update."""


@dataclass(frozen=True, slots=True)
class _Heard:
    node: RolloutNode
    moved: float


@dataclass
class NodeUpdates:
    """The nodes as of the last view."""

    _heard: Mapping[str, _Heard] = field(default_factory=dict)
    _elapsed: float = 0.0
    _taken: float = 0.0

    def take(self, view: RolloutView, now: float) -> None:
        """The roll-out is as in `view` now."""
        self._heard = {node.name: _Heard(node, self._moved(node, now)) for node in view.nodes}
        self._elapsed, self._taken = view.elapsed, now

    def node(self, name: str, now: float) -> RolloutNode | None:
        """A node that has passed the first gate, or has a fresh update; None else."""
        found = self._heard.get(name)
        if found is None or found.node.heard is None:
            return None
        fresh = found.node.ready("files") or (self.hears(name, now) and now - found.moved < STILL)
        return found.node if fresh else None

    def hears(self, name: str, now: float) -> bool:
        """Whether the node has reported lately, with or without progress."""
        found = self._heard.get(name)
        if found is None or found.node.heard is None:
            return False
        return self._elapsed + now - self._taken - found.node.heard < SILENCE

    def _moved(self, node: RolloutNode, now: float) -> float:
        before = self._heard.get(node.name)
        same = before is not None and (before.node.phase, before.node.bytes) == (node.phase, node.bytes)
        return before.moved if before is not None and same else now


LAST_WORDS = 15.0
"""Seconds for which a coordinator that is away at the end is tried again."""
RETRY = 1.0
_PHASES: dict[Stage, NodePhase] = {
    "passed": "preflight",
    "starting": "starting",
    "ready": "files_ready",
    "loading": "loading",
    "loaded": "loaded",
    "answered": "answered",
    "failed": "failed",
}


_GATES: dict[Stage, tuple[Gate, ...]] = {"ready": GATES[:1], "loaded": GATES[:2], "answered": GATES}
"""The gates up to a stage."""


class RolloutLink:
    """A roll-out while the context lasts; `note` gets a line if the coordinator does not take part."""

    def __init__(self, plan: BootstrapPlan, coordinator: Coordinator, note: Callable[[str], None]) -> None:
        self._plan = plan
        self._note = note
        self._http = HttpPool()
        self._client = RolloutClient(coordinator, http=self._http)
        self._view: RolloutView | None = None
        self._updates = NodeUpdates()
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        plan = self._plan
        await self._http.__aenter__()
        try:
            spec = RolloutSpec(
                repo=plan.ref.repo,
                commit=plan.manifest.commit,
                nodes=plan.hosts,
                gates=_GATES[plan.last_stage],
                deadline=max(1.0, plan.timeout),
                min_ready=plan.min_ready,
            )
            self._take(await self._client.create(spec))
        except P2PModelError as error:
            self._note(f"the coordinator keeps no record of this roll-out: {error}")
        else:
            self._watch = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._http.__aexit__(kind, error, traceback)

    async def tell(self, entries: Iterable[HostEntry]) -> None:
        """Report on behalf of hosts what they have not reported themselves: that they have not begun, or have failed,
        or were ready before."""
        if (view := self._view) is not None:
            heard = {node.name for node in view.nodes if node.ready(view.spec.last_gate)}
            known = [(entry, phase) for entry in entries if (phase := _PHASES.get(entry.stage))]
            late = [(entry, phase) for entry, phase in known if phase == "failed" or entry.name not in heard]
            await self._reported({entry.name: _report(entry, phase) for entry, phase in late})

    async def tell_mirrors(self, entries: Iterable[HostEntry], *, mirroring: bool) -> None:
        """Report the mirrors' rate to these hosts, as the preflight found it; `mirroring`: seeders there mirror the
        snapshot."""
        known = {entry.name: NodeLinks(mirrors=entry.mirrors, mirroring=mirroring) for entry in entries}
        await self._reported(
            {name: NodeReport("expected", links=each) for name, each in known.items() if each != NO_LINKS}
        )

    async def conclude(self, entries: Sequence[HostEntry]) -> RolloutView | None:
        """Tell the last of the hosts, and return the coordinator's record; None if it keeps none.

        One that is away is waited for: it may restart. It is then told again what it missed.
        """
        clock = asyncio.get_running_loop().time
        ends = clock() + LAST_WORDS
        while self._view is not None:
            await self.tell(entries)
            try:
                self._view = await self._client.read(self._view.id)
                if self._view.state != "open" or not _lacks(self._view, entries):
                    break
            except Unavailable:
                pass
            except P2PModelError:
                break
            if clock() >= ends:
                break
            await asyncio.sleep(RETRY)
        return self._view

    def node(self, name: str) -> RolloutNode | None:
        """The node of a host at the coordinator, if its update is fresh; None else: ask the host itself."""
        return self._updates.node(name, asyncio.get_running_loop().time())

    def hears(self, name: str) -> bool:
        """Whether the host has reported to the coordinator lately."""
        return self._updates.hears(name, asyncio.get_running_loop().time())

    async def _follow(self) -> None:
        assert self._view is not None
        with suppress(P2PModelError):  # the hosts are asked one by one then
            async for view in self._client.watch(self._view.id):
                self._take(view)

    def _take(self, view: RolloutView) -> None:
        self._view = view
        self._updates.take(view, asyncio.get_running_loop().time())

    async def _reported(self, reports: Mapping[str, NodeReport]) -> None:
        if self._view is not None and reports:
            with suppress(P2PModelError):  # a roll-out that is over, or a coordinator that is gone
                await self._client.report(self._view.id, reports)


def _report(entry: HostEntry, phase: NodePhase) -> NodeReport:
    checks = tuple(PreflightCheck(c.name, c.outcome != "failed", c.found) for c in entry.checks[:MAX_CHECKS])
    error = entry.failure
    failure = NodeFailure(error.code, error.what, error.hint) if error else None
    return NodeReport(phase, failure=failure, preflight=checks or None)


def _lacks(view: RolloutView, entries: Iterable[HostEntry]) -> bool:
    """Whether the record does not show yet how far a host has come."""
    nodes = {node.name: node for node in view.nodes}
    for entry in entries:
        if (node := nodes.get(entry.name)) is None:
            continue
        missed = entry.stage == "failed" and node.failure is None
        if missed or not all(node.ready(gate) for gate in _GATES.get(entry.stage, ())):
            return True
    return False
