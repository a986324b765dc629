"""Report the progress of a use case: frozen numbers, notes for the user, and access to a running transfer."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from p2pmodel.core.network.connections import PeerConnection
from p2pmodel.core.progress.progress import FileProgress, Phase, Pieces, Progress
from p2pmodel.errors import Interrupted

FileList = Callable[[], tuple[FileProgress, ...]]
"""The files of a transfer at this moment, in canonical order."""


class TransferDetails(Protocol):
    """Details of a running transfer, beyond its progress."""

    def pieces(self) -> Pieces:
        """Which pieces are here, and from which source."""

    async def connections(self) -> tuple[PeerConnection, ...]:
        """The peers and seeders that it exchanges bytes with."""


class Reporter:
    """Receives what a use case reports; this base ignores it all. Called on the event loop; must not block."""

    def progress(self, progress: Progress) -> None:
        """The numbers at this moment."""

    def note(self, line: str) -> None:
        """A line for the user."""

    @property
    def wants_files(self) -> bool:
        """Whether it uses `files`, which may cost a request."""
        return False

    def files(self, files: FileList) -> None:
        """What lists the files from now on."""

    def details(self, details: TransferDetails) -> None:
        """The transfer that can be inspected from now on."""


class NoteReporter(Reporter):
    """Passes notes to a function and ignores the rest."""

    def __init__(self, on_note: Callable[[str], None]) -> None:
        self._on_note = on_note

    def note(self, line: str) -> None:
        """Pass `line` on."""
        self._on_note(line)


class PhaseClock:
    """Measures how long each phase took."""

    def __init__(self, phase: Phase, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._phase: Phase = phase
        self._since = now()
        self._seconds: dict[Phase, float] = {}

    def enter(self, phase: Phase) -> None:
        """`phase` begins, unless it is the current one."""
        if phase != self._phase:
            now = self._now()
            self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._since
            self._phase, self._since = phase, now

    def seconds(self, *phases: Phase) -> float:
        """Seconds spent in `phases` together, up to now."""
        running = self._now() - self._since if self._phase in phases else 0.0
        return running + sum(self._seconds.get(phase, 0.0) for phase in phases)


Count = Callable[[int], None]


@contextmanager
def stoppable(count: Count) -> Iterator[Count]:
    """`count` for work in threads: a thread cannot be cancelled, but once the block is left, its next count raises
    Interrupted.

    Otherwise a cancelled pass over 500 GB would run to its end, and the process would wait for it.
    """
    stopped = False

    def counted(size: int) -> None:
        if stopped:
            raise Interrupted("stopped")
        count(size)

    try:
        yield counted
    finally:
        stopped = True


@contextmanager
def reported(reporter: Reporter, phase: Phase, total: int) -> Iterator[Count]:
    """A stoppable count; its sum is reported, on this event loop, as progress of `total` bytes (0: unknown)."""
    loop = asyncio.get_running_loop()
    done = 0

    def add(size: int) -> None:
        nonlocal done
        done += size
        progress = Progress(phase, total, min(done, total) if total else done)
        loop.call_soon_threadsafe(reporter.progress, progress)

    with stoppable(add) as count:
        yield count


__all__ = [
    "Count",
    "FileList",
    "FileProgress",
    "NoteReporter",
    "Phase",
    "PhaseClock",
    "Pieces",
    "Progress",
    "Reporter",
    "TransferDetails",
    "reported",
    "stoppable",
]
