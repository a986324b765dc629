"""The moment at which the last byte of a fetch arrived, from its progress."""

from collections.abc import Callable

from p2pmodel.core.progress.progress import Phase, Progress
from p2pmodel.node.reporter import Reporter

_AFTERWARDS: tuple[Phase, ...] = ("verifying", "publishing", "seeding", "done")


class LastByte(Reporter):
    """Calls `on_arrived` once, as soon as nothing is missing: before the last hashes, which the fetch waits for."""

    def __init__(self, on_arrived: Callable[[], object]) -> None:
        self._on_arrived = on_arrived
        self._arrived = False

    def progress(self, progress: Progress) -> None:
        """The fetch has advanced."""
        if progress.phase in _AFTERWARDS and not self._arrived:
            self._arrived = True
            self._on_arrived()
