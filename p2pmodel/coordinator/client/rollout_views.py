"""The roll-outs of the coordinators in short, for display only."""

import asyncio
import time
from collections.abc import Callable, Sequence

from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.rollouts import RolloutClient
from p2pmodel.coordinator.rollout.report import rollout_report
from p2pmodel.coordinator.rollout.rollout import RolloutView
from p2pmodel.core.progress.views import RolloutSummary
from p2pmodel.errors import P2PModelError

ASK_EVERY = 4.0
"""Seconds for which an answer is reused."""
MOST = 20
"""Roll-outs that are reported, the open and the latest first."""


class RolloutSummaries:
    """The roll-outs of `coordinators`. One that does not answer within `timeout` seconds is left out."""

    def __init__(
        self, coordinators: Sequence[Coordinator], timeout: float, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._clients = [RolloutClient(each, timeout) for each in dict.fromkeys(coordinators)]
        self._now = now
        self._lock = asyncio.Lock()
        self._asked = float("-inf")
        self._known: tuple[RolloutSummary, ...] = ()

    async def look(self) -> tuple[RolloutSummary, ...]:
        """The roll-outs, the open and the latest first. Raises nothing."""
        async with self._lock:
            if self._clients and self._now() - self._asked >= ASK_EVERY:
                answers = await asyncio.gather(*map(_ask, self._clients))
                views = sorted((view for views in answers for view in views), key=lambda v: (not v.open, -v.began))
                self._known = tuple(map(summary_of, views[:MOST]))
                self._asked = self._now()
            return self._known


def summary_of(view: RolloutView) -> RolloutSummary:
    """A roll-out in short."""
    report = rollout_report(view)
    gate = report.last_gate
    return RolloutSummary(
        id=view.id,
        repo=str(view.spec.repo),
        commit=view.spec.commit,
        state=view.state,
        began=view.began,
        elapsed=view.elapsed,
        gate=gate.gate,
        nodes=gate.nodes,
        passed=gate.passed,
        p50=gate.p50,
        last=gate.last,
        rate=report.rate,
        origin_copies=report.origin_copies,
        failed=report.failed[:MOST],
        slow=tuple(f"{node.name}: {node.why or node.phase}" for node in report.slow),
    )


async def _ask(client: RolloutClient) -> list[RolloutView]:
    try:
        latest = sorted(await client.all(), key=lambda view: (not view.open, -view.began))[:MOST]
        return [await client.read(view.id) for view in latest]
    except P2PModelError:
        return []
