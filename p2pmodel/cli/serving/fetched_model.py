"""The model of a repository: fetched through this machine's daemon or in this process, then loaded onto the device.

What becomes of the model is reported to the daemon, which passes it on to roll-outs, or to the coordinators.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from p2pmodel.cli.fetch import daemon_fetch
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import Reference
from p2pmodel.core.progress.views import EngineState
from p2pmodel.errors import P2PModelError
from p2pmodel.loading.formats import OTHER_WEIGHTS
from p2pmodel.node.fetch.request import FetchRequest, FetchResult
from p2pmodel.node.local_address import with_peer_address
from p2pmodel.node.reporter import Reporter
from p2pmodel.serving.chat_model import LoadedChatModel, load_chat_model
from p2pmodel.serving.model_server import ModelSource
from p2pmodel.serving.startup import Startup

if TYPE_CHECKING:
    from p2pmodel.node.fetch.fetch import Fetch

_LAST_REPORT = 3.0
"""Bound in seconds on the last report of a model."""


class ModelReports(Protocol):
    """Where it is reported what has become of a model."""

    async def report(self, state: EngineState, error: P2PModelError | None = None) -> None:
        """Report `state`, with the error if it is "failed"."""


@dataclass(frozen=True, slots=True)
class DaemonReports(ModelReports):
    """Reports to this machine's daemon."""

    settings: Settings
    repo: str
    commit: str

    async def report(self, state: EngineState, error: P2PModelError | None = None) -> None:  # noqa: ARG002
        """Report `state`; the daemon takes no reasons."""
        await daemon_fetch.report_engine(self.settings, self.repo, self.commit, state)


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
class FetchedSnapshot:
    """A complete snapshot, and where it is reported what becomes of its model."""

    path: Path
    reports: ModelReports


async def fetch_snapshot(
    settings: Settings, ref: Reference, reporter: Reporter, *, allow_pickle: bool, no_daemon: bool
) -> FetchedSnapshot:
    """Fetch what loading the model of `ref` needs, through the daemon if it runs on this cache, else in this process.

    Every file is verified. Raises the errors of a fetch.
    """
    request = FetchRequest(target=ref, exclude=() if allow_pickle else OTHER_WEIGHTS)
    here = settings.client.server is None  # a remote daemon would keep the files
    if here and not no_daemon and await daemon_fetch.usable(settings, reporter):
        report = await daemon_fetch.fetch(settings, request, reporter)
        return FetchedSnapshot(report.path, DaemonReports(settings, report.repo, report.commit))
    from p2pmodel.node.fetch.fetch import Fetch  # noqa: PLC0415 - imports the engine

    fetching = Fetch(request, await asyncio.to_thread(with_peer_address, settings), reporter)
    found: list[FetchResult] = []
    await fetching.run(found.append)
    return FetchedSnapshot(found[0].path, CoordinatorReports(fetching))


class FetchedModel(ModelSource):
    """The model of `ref` for `p2pmodel serve`."""

    def __init__(
        self,
        settings: Settings,
        ref: Reference,
        *,
        device: str | None,
        allow_pickle: bool,
        no_daemon: bool,
        on_loaded: Callable[[LoadedChatModel], None],
    ) -> None:
        self._settings = settings
        self._ref = ref
        self._device = device
        self._allow_pickle = allow_pickle
        self._no_daemon = no_daemon
        self._on_loaded = on_loaded
        self._reports: ModelReports | None = None
        self._state: EngineState = "loaded"

    async def bring(self, startup: Startup) -> LoadedChatModel:
        """Fetch the snapshot, then load it in a thread."""
        snapshot = await fetch_snapshot(
            self._settings, self._ref, startup, allow_pickle=self._allow_pickle, no_daemon=self._no_daemon
        )
        startup.loading()
        self._reports = reports = snapshot.reports
        await reports.report("loading")
        try:
            model = await asyncio.to_thread(
                load_chat_model, snapshot.path, device=self._device, allow_pickle=self._allow_pickle
            )
        except P2PModelError as error:
            await reports.report("failed", error)
            raise
        await reports.report("loaded")
        self._on_loaded(model)
        return model

    async def first_answer(self) -> None:
        """Report it."""
        assert self._reports is not None
        self._state = "answered"
        await self._reports.report(self._state)

    async def stay(self) -> None:
        """Repeat the report, since a daemon forgets it after a time, and take it back at the end."""
        reports = self._reports
        assert reports is not None
        try:
            while True:
                await asyncio.sleep(daemon_fetch.ENGINE_SECONDS / 3)
                if isinstance(reports, DaemonReports):
                    await reports.report(self._state)
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_REPORT):
                    await reports.report("none")
