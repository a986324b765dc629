"""The swarms and roll-outs of the whole cluster as its coordinators report them, for display only."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from p2pmodel.coordinator.client.catalog import list_torrents
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.rollouts import RolloutClient
from p2pmodel.coordinator.leases.demand import MAX_CUT_OFF
from p2pmodel.coordinator.rollout.report import rollout_report
from p2pmodel.coordinator.rollout.rollout import RolloutView
from p2pmodel.core.content.names import RepoId, is_commit, printable
from p2pmodel.core.progress.views import CatalogView, RolloutSummary
from p2pmodel.errors import P2PModelError

ASK_EVERY = 4.0
"""Seconds for which an answer is reused."""
MAX_SWARMS = 200
"""Swarms that are reported, the busiest first."""
MAX_ROLLOUTS = 20
"""Roll-outs that are reported, the open and the latest first."""


class SwarmViews:
    """The swarms of `coordinators`. One that does not answer within `timeout` seconds is left out."""

    def __init__(
        self, coordinators: Sequence[Coordinator], timeout: float, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._coordinators = tuple(dict.fromkeys(coordinators))
        self._timeout = timeout
        self._now = now
        self._lock = asyncio.Lock()
        self._asked = float("-inf")
        self._known: tuple[CatalogView, ...] = ()

    async def look(self) -> tuple[CatalogView, ...]:
        """All swarms, the busiest first; each snapshot once, however many coordinators have it. Raises nothing."""
        async with self._lock:
            if self._coordinators and self._now() - self._asked >= ASK_EVERY:
                answers = await asyncio.gather(*map(self._ask, self._coordinators))
                self._known = merged(view for views in answers for view in views)
                self._asked = self._now()
            return self._known

    async def _ask(self, coordinator: Coordinator) -> list[CatalogView]:
        try:
            plain = await list_torrents(coordinator, self._timeout)
        except P2PModelError:
            return []
        return [view for view in map(_view, plain) if view is not None]


def merged(views: Iterable[CatalogView]) -> tuple[CatalogView, ...]:
    """One view for each snapshot, of its busiest swarm: peers that announce to several coordinators are the same."""
    found: dict[tuple[str, str], CatalogView] = {}
    for view in views:
        key = view.repo, view.commit
        if key not in found or _busy(found[key]) < _busy(view):
            found[key] = view
    return tuple(sorted(found.values(), key=lambda v: (-_busy(v), v.repo, v.commit))[:MAX_SWARMS])


def _busy(view: CatalogView) -> int:
    return view.seeders + view.leechers


def _view(plain: Mapping[str, Any]) -> CatalogView | None:
    """A coordinator's JSON as a view; None if it is malformed."""
    try:
        repo, commit, names = plain["repo"], plain["commit"], plain["revisions"]
        counts = plain["size"], plain["seeders"], plain["leechers"], plain["origin_bytes"]
        if not (isinstance(repo, str) and isinstance(commit, str) and is_commit(commit)):
            return None
        if not all(type(count) is int and 0 <= count < 1 << 60 for count in counts):
            return None
        revisions = tuple(printable(str(name), 100) for name in names[:10])
        cut_off = tuple(printable(str(name), 64) for name in plain.get("cut_off", ())[:MAX_CUT_OFF])
        unreachable = tuple(printable(str(text), 120) for text in plain.get("unreachable", ())[:MAX_CUT_OFF])
        return CatalogView(str(RepoId(repo)), commit, revisions, *counts, cut_off=cut_off, unreachable=unreachable)
    except (KeyError, TypeError, P2PModelError):
        return None


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
                answers = await asyncio.gather(*map(_latest_of, self._clients))
                views = sorted((view for views in answers for view in views), key=lambda v: (not v.open, -v.began))
                self._known = tuple(map(summary_of, views[:MAX_ROLLOUTS]))
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
        failed=report.failed[:MAX_ROLLOUTS],
        slow=tuple(f"{node.name}: {node.why or node.phase}" for node in report.slow),
    )


async def _latest_of(client: RolloutClient) -> list[RolloutView]:
    try:
        latest = sorted(await client.all(), key=lambda view: (not view.open, -view.began))[:MAX_ROLLOUTS]
        return [await client.read(view.id) for view in latest]
    except P2PModelError:
        return []
