"""What one fetch reports: progress and notes are passed on, phases are measured."""

import time
from dataclasses import replace

from p2pmodel.core.progress.progress import Timings
from p2pmodel.node.reporter import Insight, PhaseClock, Progress, Reporter


class FetchMonitor(Reporter):
    """Passes reports on, measures the phases, and keeps the latest progress."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._began = time.monotonic()
        self._clock = PhaseClock("finding")
        self.latest = Progress("finding")
        self.exception = ""
        """Set in all progress from now on, if not empty: `Progress.exception`."""

    def progress(self, progress: Progress) -> None:
        """Keep `progress`, and pass it on."""
        if self.exception:
            progress = replace(progress, exception=self.exception)
        self.latest = progress
        self._clock.enter(progress.phase)
        self._reporter.progress(progress)

    def note(self, line: str) -> None:
        """Pass `line` on."""
        self._reporter.note(line)

    def insight(self, insight: Insight) -> None:
        """Pass `insight` on."""
        self._reporter.insight(insight)

    def timings(self) -> Timings:
        """The seconds spent so far, by phase."""
        spent = self._clock.seconds
        return Timings(
            total=time.monotonic() - self._began,
            find=spent("finding"),
            download=spent("downloading", "mirroring"),
            verify=spent("checking", "verifying", "publishing"),
        )
