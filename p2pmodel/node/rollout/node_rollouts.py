"""The transfers of a long-lived node in roll-outs."""

import asyncio
from collections.abc import Callable
from functools import partial

from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.coordinators import configured
from p2pmodel.core.content.names import RepoId
from p2pmodel.core.progress.diagnosis import HostBounds
from p2pmodel.core.progress.views import LimitsView, TransferView
from p2pmodel.core.tasks import Version, companions
from p2pmodel.node.host_stats import node_name
from p2pmodel.node.rollout.own_state import standing_of_view
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
