"""Check pieces on this disk that other peers complained about.

A complaint proves nothing. The piece is read and compared with the torrent; if it fails, the whole file is compared
with the hub's hash, which alone decides. The number of checks is bounded, so a liar costs little.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable

from p2pmodel.coordinator.tracker.announce_texts import pieces_in
from p2pmodel.core import notes
from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.errors import P2PModelError
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.verify import rehash
from p2pmodel.swarm.torrents import Metainfo

MOST_A_MINUTE = 10
MOST_WAITING = 64


class PieceChecks:
    """The checks of one torrent. `warned` takes a tracker's warning, `run` does the work."""

    def __init__(
        self,
        repo: RepoCache,
        metainfo: Metainfo,
        note: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._repo = repo
        self._metainfo = metainfo
        self._note = note
        self._clock = clock
        self._waiting: asyncio.Queue[int] = asyncio.Queue(MOST_WAITING)
        self._begun: deque[float] = deque(maxlen=MOST_A_MINUTE)
        self._right: set[str] = set()
        """Etags of files with the hub's hash: of these the torrent is wrong, not the disk."""

    def warned(self, message: str) -> None:
        """Queue the pieces that the warning names, as far as the bounds allow."""
        for piece in pieces_in(message):
            recent = len(self._begun) == MOST_A_MINUTE and self._clock() - self._begun[0] < 60.0
            if recent or self._waiting.full() or piece >= self._metainfo.layout.piece_count:
                return
            self._begun.append(self._clock())
            self._waiting.put_nowait(piece)

    async def run(self) -> None:
        """Check what is queued, until cancelled."""
        while True:
            await self.check(await self._waiting.get())

    async def check(self, piece: int) -> None:
        """Check one piece; the result is recorded if the file is damaged."""
        file = self._metainfo.manifest.files[self._metainfo.layout.span_of(piece).index]
        try:
            if file.etag in self._right or await asyncio.to_thread(self._passes, piece, file):
                return
            if await asyncio.to_thread(rehash, self._repo, file):
                self._right.add(file.etag)
                return
        except P2PModelError as error:
            self._note(notes.error("check_failed", f"{file.path} cannot be read: {error}", file=file.path))
            return
        self._note(
            notes.error(
                "blob_damaged",
                f"{file.path} is damaged on this disk, as other peers reported: it is not served",
                file=file.path,
            )
        )

    @translated()
    def _passes(self, piece: int, file: ManifestFile) -> bool:
        if self._repo.usable(file) is None:
            return True  # it is not served
        place = self._metainfo.layout.piece_range(piece)
        with self._repo.open_blob(file) as blob:
            return self._metainfo.accepts(piece, os.pread(blob.fileno(), place.length, place.offset))
