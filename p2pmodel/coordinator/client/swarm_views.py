"""The swarms of the whole cluster as its coordinators report them, for display only."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from p2pmodel.coordinator.client.catalog import list_torrents
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.leases.cut_off import MAX_CUT_OFF
from p2pmodel.core.content.names import RepoId, is_commit, printable
from p2pmodel.core.progress.views import CatalogView
from p2pmodel.errors import P2PModelError

ASK_EVERY = 4.0
"""Seconds for which an answer is reused."""
MAX_SWARMS = 200
"""Swarms that are reported, the busiest first."""


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
