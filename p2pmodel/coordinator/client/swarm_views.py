"""The swarms of the whole cluster, as its coordinators see them: numbers to look at, nothing is decided by them."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from p2pmodel.coordinator.client import catalog
from p2pmodel.core.names import RepoId, is_commit, printable
from p2pmodel.core.views import CatalogView
from p2pmodel.errors import P2PModelError

ASK_EVERY = 4.0
"""Seconds for which an answer is kept, however many ask."""
MOST = 200
"""Swarms that are told of, the busiest first."""


class SwarmViews:
    """What the coordinators at `urls` say. One that does not answer within `timeout` seconds says nothing."""

    def __init__(self, urls: Sequence[str], timeout: float, *, now: Callable[[], float] = time.monotonic) -> None:
        self._urls = tuple(dict.fromkeys(url.rstrip("/") for url in urls))
        self._timeout = timeout
        self._now = now
        self._lock = asyncio.Lock()
        self._asked = float("-inf")
        self._known: tuple[CatalogView, ...] = ()

    async def look(self) -> tuple[CatalogView, ...]:
        """Every swarm of them, the busiest first; a snapshot that several know is told of once. Raises nothing."""
        async with self._lock:
            if self._urls and self._now() - self._asked >= ASK_EVERY:
                said = await asyncio.gather(*map(self._ask, self._urls))
                self._known = merged(view for views in said for view in views)
                self._asked = self._now()
            return self._known

    async def _ask(self, url: str) -> list[CatalogView]:
        try:
            plain = await catalog.catalog(url, self._timeout)
        except P2PModelError:
            return []
        return [view for view in map(_view, plain) if view is not None]


def merged(views: Iterable[CatalogView]) -> tuple[CatalogView, ...]:
    """One for each snapshot, that of the busiest swarm: those who announce to several coordinators are the same."""
    found: dict[tuple[str, str], CatalogView] = {}
    for view in views:
        key = view.repo, view.commit
        if key not in found or _busy(found[key]) < _busy(view):
            found[key] = view
    return tuple(sorted(found.values(), key=lambda v: (-_busy(v), v.repo, v.commit))[:MOST])


def _busy(view: CatalogView) -> int:
    return view.seeders + view.leechers


def _view(plain: Mapping[str, Any]) -> CatalogView | None:
    """As a coordinator said it; None for what makes no sense."""
    try:
        repo, commit, names = plain["repo"], plain["commit"], plain["revisions"]
        counts = [plain[name] for name in ("size", "seeders", "leechers", "origin_bytes")]
        if not (isinstance(repo, str) and isinstance(commit, str) and is_commit(commit)):
            return None
        if not all(type(count) is int and 0 <= count < 1 << 60 for count in counts):
            return None
        revisions = tuple(printable(str(name), 100) for name in names[:10])
        return CatalogView(str(RepoId(repo)), commit, revisions, *counts)
    except (KeyError, TypeError, P2PModelError):
        return None
