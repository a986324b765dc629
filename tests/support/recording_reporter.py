"""A reporter that passes progress and notes to functions, so that a test can record them."""

from collections.abc import Callable

from p2pmodel.node.reporter import Progress, Reporter


class RecordingReporter(Reporter):
    def __init__(
        self, on_progress: Callable[[Progress], object] | None = None, note: Callable[[str], object] | None = None
    ) -> None:
        self._on_progress = on_progress
        self._on_note = note

    def progress(self, progress: Progress) -> None:
        if self._on_progress:
            self._on_progress(progress)

    def note(self, line: str) -> None:
        if self._on_note:
            self._on_note(line)
