"""One fetch of a command in roll-outs: its download, and the model that the command loads afterwards."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.coordinators import configured
from p2pmodel.core import notes
from p2pmodel.core.content.names import RepoId
from p2pmodel.core.progress.progress import Progress
from p2pmodel.core.progress.views import EngineState
from p2pmodel.core.tasks import companions
from p2pmodel.errors import P2PModelError
from p2pmodel.http_pool import HttpPool
from p2pmodel.node.host_stats import node_name
from p2pmodel.node.rollout.own_state import (
    NOT_LOADED,
    RolloutStanding,
    failure_of,
    standing_of_engine,
    standing_of_progress,
)
from p2pmodel.node.rollout.reports import RolloutReports, host_bounds


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
        """What has become of the model. It is reported by `reporting`, or by the next `report_engine`."""
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
