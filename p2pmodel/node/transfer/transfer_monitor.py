"""Observe one transfer of a node: its latest numbers, the last notes, and what can be inspected while it runs."""

from collections import deque
from dataclasses import replace
from typing import Protocol

from p2pmodel.core.network.connections import PeerConnection
from p2pmodel.core.notes import Note
from p2pmodel.core.progress.progress import FileProgress, Pieces, Progress
from p2pmodel.node.reporter import FileList, Reporter, TransferDetails

_TOTALS = ("from_peers", "from_mirrors", "from_seeders", "uploaded", "rejected")
NOTES = 20
"""Notes that are kept of one transfer."""


class TransferObserver(Protocol):
    """Receives the events of the transfers of a node."""

    def transfer_changed(self) -> None:
        """The view of a transfer has changed."""

    def transfer_settled(self) -> None:
        """A transfer has become complete, or its task has ended."""

    def log(self, line: str) -> None:
        """A line for the log."""


class TransferMonitor(Reporter):
    """The reporter of one transfer; `name` begins its lines in the log."""

    def __init__(self, name: str, observer: TransferObserver) -> None:
        self._name = name
        self._observer = observer
        self._details: TransferDetails | None = None
        self._files: FileList | None = None
        self._last_files: tuple[FileProgress, ...] = ()
        self._notes: deque[str] = deque(maxlen=NOTES)
        self._counting = False
        self.latest = Progress("finding")
        """The last progress."""
        self.note_count = 0
        """Notes in all."""

    def progress(self, progress: Progress) -> None:
        """Replace the latest progress."""
        progress = self._counted_up(progress)
        if progress == self.latest:
            return
        self.latest = progress
        self._observer.transfer_changed()

    def _counted_up(self, progress: Progress) -> Progress:
        """`progress` with totals that never fall while the task runs: each part of a fetch begins to count anew, and
        counts what was there before only once it has found it."""
        if not self._counting:
            self._counting = True
            return progress
        before = self.latest
        return replace(progress, **{name: max(getattr(before, name), getattr(progress, name)) for name in _TOTALS})

    def note(self, line: str) -> None:
        """Keep `line`, and log it."""
        self._notes.append(line)
        self.note_count += 1
        self._observer.log(Note.of(line).within(f"{self._name}: ", repo=self._name))
        self._observer.transfer_changed()

    def details(self, details: TransferDetails) -> None:
        """Inspect this transfer from now on."""
        self._details = details

    def files(self, files: FileList) -> None:
        """List the files by `files` from now on."""
        self._files = files

    def ended(self) -> None:
        """The transfer's task has ended: nothing moves."""
        self._details = None
        self._last_files, self._files = self.file_progress(), None
        self._counting = False
        self.latest = replace(self.latest, peers=0, download_rate=0, upload_rate=0, waiting_for="")

    @property
    def notes(self) -> tuple[str, ...]:
        """The last notes, oldest first."""
        return tuple(self._notes)

    def pieces(self) -> Pieces:
        """Which pieces are here; none while the transfer is in no swarm."""
        return self._details.pieces() if self._details else Pieces()

    def file_progress(self) -> tuple[FileProgress, ...]:
        """The files of the transfer, now or when its task ended; none before it knows them."""
        return self._files() if self._files else self._last_files

    async def connections(self) -> tuple[PeerConnection, ...]:
        """The peers and seeders that the transfer exchanges bytes with."""
        return await self._details.connections() if self._details else ()
