"""What one fetch reports: progress and notes are passed on, phases are measured."""

import time
from dataclasses import replace

from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.rollout.nodes import NodeReport
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.progress.progress import Timings
from p2pmodel.node.reporter import FileList, Insight, PhaseClock, Progress, Reporter
from p2pmodel.node.rollout.fetch_rollout import FetchRollout
from p2pmodel.node.rollout.own_state import numbers_of


class FetchMonitor(Reporter):
    """Passes reports on, measures the phases, and keeps the latest progress."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._began = time.monotonic()
        self._clock = PhaseClock("finding")
        self.latest = Progress("finding")
        self.exception = ""
        """Set in all progress from now on, if not empty: `Progress.exception`."""
        self.rollout: FetchRollout | None = None
        """Its part in roll-outs; it receives the progress, too."""

    def progress(self, progress: Progress) -> None:
        """Keep `progress`, and pass it on."""
        if self.exception:
            progress = replace(progress, exception=self.exception)
        self.latest = progress
        self._clock.enter(progress.phase)
        self._reporter.progress(progress)
        if self.rollout is not None:
            self.rollout.progress(progress)

    def note(self, line: str) -> None:
        """Pass `line` on."""
        self._reporter.note(line)

    def files(self, files: FileList) -> None:
        """Pass `files` on."""
        self._reporter.files(files)

    def insight(self, insight: Insight) -> None:
        """Pass `insight` on."""
        self._reporter.insight(insight)

    def join_rollouts(self, settings: Settings, manifest: Manifest) -> FetchRollout:
        """Report to roll-outs from now on, too."""
        self.rollout = FetchRollout(settings, manifest.repo, manifest.commit, self.note)
        return self.rollout

    def numbers(self) -> NodeReport | None:
        """What goes with a demand for leases."""
        return numbers_of(self.latest)

    def timings(self) -> Timings:
        """The seconds spent so far, by phase."""
        spent = self._clock.seconds
        return Timings(
            total=time.monotonic() - self._began,
            find=spent("finding"),
            download=spent("downloading", "mirroring"),
            verify=spent("checking", "verifying", "publishing"),
        )
