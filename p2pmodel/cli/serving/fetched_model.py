"""The model of a repository: fetched through this machine's daemon or in this process, and loaded onto the device.

It is loaded while the files arrive. What becomes of the model is reported to the daemon, which passes it on to
roll-outs, or to the coordinators.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from p2pmodel.cli.fetch import daemon_fetch
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.manifest import Selection
from p2pmodel.core.content.names import Reference, RepoId
from p2pmodel.core.progress.views import EngineState
from p2pmodel.errors import P2PModelError
from p2pmodel.loading import optional_imports
from p2pmodel.loading.formats import OTHER_WEIGHTS
from p2pmodel.loading.options import LoadOptions, LoadProgress, OnLoadProgress
from p2pmodel.node.fetch.request import FetchRequest
from p2pmodel.node.local_address import with_peer_address
from p2pmodel.node.reporter import Reporter
from p2pmodel.serving.answers import LoadedChatModel
from p2pmodel.serving.model_server import ModelSource
from p2pmodel.serving.startup import Startup
from p2pmodel.store.cache import HubCache

if TYPE_CHECKING:
    from p2pmodel.loading.model import LoadedModel
    from p2pmodel.node.fetch.fetch import Fetch

_LAST_REPORT = 3.0
"""Bound in seconds on the last report of a model."""


class ModelReports(Protocol):
    """A receiver of the states of a model."""

    async def report(self, state: EngineState, error: P2PModelError | None = None) -> None:
        """Report `state`, with the error if it is "failed"."""


class DaemonReports(ModelReports):
    """Reports to this machine's daemon, once it knows the snapshot."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._snapshot: tuple[RepoId, str] | None = None

    def found_by(self, on_found: Callable[[RepoId, str], None]) -> Callable[[RepoId, str], None]:
        """A handler of the snapshot that the daemon found. It calls `on_found`, too."""

        def found(repo: RepoId, commit: str) -> None:
            self._snapshot = repo, commit
            on_found(repo, commit)

        return found

    async def report(self, state: EngineState, error: P2PModelError | None = None) -> None:  # noqa: ARG002
        """Report `state`; the daemon takes no reasons."""
        if self._snapshot is not None:
            repo, commit = self._snapshot
            await daemon_fetch.report_engine(self._settings, str(repo), commit, state)


@dataclass(frozen=True, slots=True)
class CoordinatorReports(ModelReports):
    """Reports of a fetch in this process."""

    fetching: "Fetch"

    async def report(self, state: EngineState, error: P2PModelError | None = None) -> None:
        """Report `state` to the coordinators that have a roll-out of the snapshot."""
        rollout = self.fetching.rollout
        if rollout is not None:
            rollout.engine(state, error)
            await rollout.report_engine(last=state in ("none", "failed"))


@dataclass(frozen=True, slots=True)
class ReportedModel:
    """A model that answers, and where it is reported what becomes of it."""

    model: LoadedChatModel
    reports: ModelReports


def _ignore(_progress: LoadProgress) -> None:
    """Show nothing."""


@dataclass(frozen=True, slots=True)
class ModelFetch:
    """The model of `ref`, and how it is fetched and loaded."""

    settings: Settings
    ref: Reference
    load: LoadOptions
    no_daemon: bool = False

    def check(self) -> None:
        """Raise InvalidInput or LocalResource for what cannot be loaded here, before anything is fetched."""
        optional_imports.check_installed()
        self.load.check()

    async def bring(
        self,
        reporter: Reporter,
        *,
        on_verified: Callable[[], object] = lambda: None,
        on_progress: OnLoadProgress = _ignore,
    ) -> ReportedModel:
        """Fetch what loading needs, through the daemon if it runs on this cache, and load it.

        `on_verified` is called once every file is verified; nothing is returned before. Raises the errors of a fetch
        and of a load.
        """
        request = FetchRequest(target=self.ref, exclude=() if self.load.allow_pickle else OTHER_WEIGHTS)
        here = self.settings.client.server is None  # a remote daemon would keep the files
        if here and not self.no_daemon and await daemon_fetch.usable(self.settings, reporter):
            return await self._beside_daemon(request, reporter, on_verified, on_progress)
        from p2pmodel.loading.arrival.fetch_load import fetch_and_load  # noqa: PLC0415 - imports the engine
        from p2pmodel.node.fetch.fetch import Fetch  # noqa: PLC0415 - imports the engine

        fetching = Fetch(request, await asyncio.to_thread(with_peer_address, self.settings), reporter)
        loading = fetch_and_load(fetching, self.load, on_ready=lambda _result: on_verified(), on_progress=on_progress)
        return await _reported(loading, CoordinatorReports(fetching))

    async def _beside_daemon(
        self,
        request: FetchRequest,
        reporter: Reporter,
        on_verified: Callable[[], object],
        on_progress: OnLoadProgress,
    ) -> ReportedModel:
        """Let the daemon download; the model is loaded here while the files arrive."""
        from p2pmodel.loading.arrival.fetch_load import load_beside  # noqa: PLC0415 - imports the engine

        reports = DaemonReports(self.settings)
        loading = load_beside(
            lambda found: daemon_fetch.fetch(self.settings, request, reporter, on_found=reports.found_by(found)),
            HubCache(self.settings.cache_dir, self.settings.state_dir),
            Selection(request.include, request.exclude),
            self.load,
            request=daemon_fetch.order(self.settings).request,
            on_ready=lambda _report: on_verified(),
            on_progress=on_progress,
        )
        return await _reported(loading, reports)


async def _reported(loading: "Coroutine[Any, Any, Callable[[], LoadedModel]]", reports: ModelReports) -> ReportedModel:
    try:
        loaded = (await loading)()
    except P2PModelError as error:
        await reports.report("failed", error)
        raise
    await reports.report("loaded")
    return ReportedModel(LoadedChatModel(loaded), reports)


class FetchedModel(ModelSource):
    """The model of `fetch` for `p2pmodel serve`."""

    def __init__(
        self,
        fetch: ModelFetch,
        on_loaded: Callable[[LoadedChatModel], None],
        on_progress: OnLoadProgress = _ignore,
    ) -> None:
        self._fetch = fetch
        self._on_progress = on_progress
        self._on_loaded = on_loaded
        self._brought: ReportedModel | None = None
        self._state: EngineState = "loaded"

    async def bring(self, startup: Startup) -> LoadedChatModel:
        """Fetch and load it."""

        def show(progress: LoadProgress) -> None:
            startup.loading(progress)
            self._on_progress(progress)

        brought = await self._fetch.bring(startup, on_verified=startup.verified, on_progress=show)
        self._brought = brought
        self._on_loaded(brought.model)
        return brought.model

    async def first_answer(self) -> None:
        """Report it."""
        self._state = "answered"
        await self._reports.report(self._state)

    async def stay(self) -> None:
        """Repeat the report, since a daemon forgets it after a time, and take it back at the end."""
        reports = self._reports
        try:
            while True:
                await asyncio.sleep(daemon_fetch.ENGINE_SECONDS / 3)
                if isinstance(reports, DaemonReports):
                    await reports.report(self._state)
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_REPORT):
                    await reports.report("none")

    @property
    def _reports(self) -> ModelReports:
        assert self._brought is not None
        return self._brought.reports
