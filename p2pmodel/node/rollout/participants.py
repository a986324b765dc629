"""The participants of roll-outs: a long-lived node with all its transfers, and one fetch of a command with its load."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.coordinators import configured
from p2pmodel.core import notes
from p2pmodel.core.content.names import RepoId
from p2pmodel.core.progress.diagnosis import HostBounds
from p2pmodel.core.progress.progress import Progress
from p2pmodel.core.progress.views import EngineState, LimitsView, TransferView
from p2pmodel.core.tasks import Version, companions
from p2pmodel.errors import P2PModelError
from p2pmodel.http_pool import HttpPool
from p2pmodel.node.host_stats import node_name
from p2pmodel.node.rollout.own_state import (
    NOT_LOADED,
    RolloutStanding,
    failure_of,
    standing_of_engine,
    standing_of_progress,
    standing_of_view,
)
from p2pmodel.node.rollout.reports import RolloutReports, host_bounds

LOOK_EVERY = 0.1
"""Seconds between two looks at the transfers at least."""


class NodeRollouts:
    """Reports every transfer of a node. `version` grows with each change of `views`; `limits` are the node's own."""

    def __init__(
        self,
        settings: Settings,
        version: Version,
        views: Callable[[], tuple[TransferView, ...]],
        limits: Callable[[], LimitsView],
    ) -> None:
        self._version = version
        self._views = views
        self._limits = limits
        self._reports = RolloutReports(
            partial(configured, settings), node_name(settings.node_name), bounds=self._bounds
        )

    async def run(self) -> None:
        """Report until cancelled."""
        async with companions() as start:
            start(self._reports.run())
            while True:
                version, views = self._version.value, self._views()
                self._reports.keep_only({(view.repo, view.commit) for view in views})
                for view in views:
                    self.update(view)
                await self._version.beyond(version, timeout=None)
                await asyncio.sleep(LOOK_EVERY)

    def update(self, view: TransferView) -> None:
        """Report a transfer as it is now."""
        self._reports.update(RepoId(view.repo), view.commit, standing_of_view(view))

    def ask(self, repo: RepoId, commit: str) -> None:
        """The transfer was asked for: a roll-out may have begun."""
        self._reports.ask(repo, commit)

    def _bounds(self) -> HostBounds:
        limits = self._limits()
        return host_bounds(limits.download_now, limits.upload_now)


class FetchRollout:
    """Reports one snapshot: by `reporting` while it is fetched, then by `report_engine`. `on_note` receives lines."""

    def __init__(self, settings: Settings, repo: RepoId, commit: str, on_note: Callable[[str], None]) -> None:
        self._settings = settings
        self._repo = repo
        self._commit = commit
        self._on_note = on_note
        self._standing: RolloutStanding | None = None
        self._reports: RolloutReports | None = None
        self._complete = False
        self._open = False
        """Whether a roll-out of the snapshot was open at the last report."""

    @asynccontextmanager
    async def reporting(self, http: HttpPool) -> AsyncIterator[None]:
        """Report the fetch while the context lasts, and its last standing at the end, within a bound."""
        self._reports = reports = self._new_reports(http)
        self.progress(Progress("finding"))
        async with companions() as start:
            start(reports.run())
            try:
                yield
            except P2PModelError as error:
                self._update(RolloutStanding("failed", self._progress, failure_of(error)))
                raise
            finally:
                await self._end(reports)

    def progress(self, progress: Progress) -> None:
        """The fetch has advanced."""
        self._update(standing_of_progress(progress, complete=self._complete))

    def ready(self) -> None:
        """All files are verified and visible."""
        self._complete = True
        self.progress(self._progress)

    def engine(self, state: EngineState, error: P2PModelError | None = None) -> None:
        """The model has another state. `reporting` reports it, or the next `report_engine`."""
        if self._standing is not None:
            self._update(standing_of_engine(state, self._progress, failure_of(error) if error else NOT_LOADED))

    async def report_engine(self, *, last: bool) -> None:
        """Report what `engine` noted since the fetch ended. `last`: nothing follows, so it is tried for longer."""
        assert self._standing is not None
        reports = self._new_reports(None)
        reports.update(self._repo, self._commit, self._standing)
        async with companions() as start:
            start(reports.run())
            await self._end(reports, last=last)

    @property
    def _progress(self) -> Progress:
        return self._standing.progress if self._standing else Progress("finding")

    def _new_reports(self, http: HttpPool | None) -> RolloutReports:
        settings = self._settings
        bounds = partial(host_bounds, settings.swarm.download_limit, settings.swarm.upload_limit)
        return RolloutReports(partial(configured, settings), node_name(settings.node_name), bounds=bounds, http=http)

    def _update(self, standing: RolloutStanding) -> None:
        if self._reports is not None:
            self._standing = self._reports.update(self._repo, self._commit, standing)
        else:
            self._standing = standing.after(self._standing, time.monotonic())

    async def _end(self, reports: RolloutReports, *, last: bool = True) -> None:
        def waiting() -> None:
            text = "waiting for the coordinator to take the last report of the roll-out"
            self._on_note(notes.info("rollout_report", text))

        self._open |= reports.open
        await reports.last_words(may_be_open=self._open and last, on_wait=waiting)
        self._open |= reports.open
        self._reports = None
