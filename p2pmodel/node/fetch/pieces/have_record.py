"""Record on disk which pieces of a transfer are durable, so that the next run need not check or fetch them."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from p2pmodel.core.content.layout import MIB
from p2pmodel.errors import Unavailable
from p2pmodel.node.fetch.pieces.stats import PieceStats
from p2pmodel.node.snapshot.piece_record import PieceRecord
from p2pmodel.store.staging import StagedContents
from p2pmodel.swarm.torrents import Metainfo

SAVE_EVERY = 0.25
"""Seconds between saves, at least. The engine keeps received pieces in memory until it is asked to write them, so this
is also what a kill -9 costs, beside the pieces in flight."""
SHARE = 0.01
"""The share of time that saves may take; they become rarer where they would take more. A save takes 2 ms on an idle
machine and 3 ms where 32 nodes share two cores, and costs the engine about as much again. There, saves were a tenth of
a node's CPU time (64 MB at 10 Mbit/s: 35.9 CPU seconds a GB with four saves a second, 32.2 with half this share)."""
LATEST = 1.0
"""Seconds after which a save is not postponed any longer: a client that reads a growing file waits for it."""
UNSAVED = 32 * MIB
"""Bytes received since the last save after which a save is due at once."""
LEAST_UNSAVED = 4 * MIB
"""The same at both ends of a download. In between, a save is due once as much is unsaved as was saved before, or is
still to come: a few saves, each twice or half as large as the one before. So a load begins soon, and one that has kept
up has little left to take after the last byte."""


class DurableTorrent(Protocol):
    """What a record needs of a SwarmTorrent."""

    async def durable(self) -> frozenset[int]:
        """As `SwarmTorrent.durable`."""


class HaveRecord:
    """The record of one transfer; `clock` counts seconds."""

    def __init__(
        self,
        contents: StagedContents,
        metainfo: Metainfo,
        stats: PieceStats,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pieces = PieceRecord(contents, metainfo)
        self._recorded: frozenset[int] = frozenset()
        self._stats = stats
        self._clock = clock
        self._saved = 0
        self._rests_until = 0.0
        self._at_once = asyncio.Event()
        """Set when a save of the first or last bytes is due."""
        self._turn = asyncio.Lock()
        """A record that is written after a later one would lack its pieces."""
        self.durable: frozenset[int] = frozenset()
        """Pieces that are right and can be read from their files, as of the last save."""

    async def load(self) -> frozenset[int]:
        """Pieces that an earlier run recorded, of this torrent or of another one with the same contents."""
        self._recorded = await asyncio.to_thread(self._pieces.load)
        return self._recorded

    def begin(self, have: frozenset[int]) -> None:
        """An attempt begins with `have` on disk, which the stats count already."""
        self.durable, self._saved = have, self._stats.done

    @property
    def due(self) -> bool:
        """Whether a save is due."""
        return self._unsaved >= self._enough or (self._unsaved > 0 and self._clock() >= self._rests_until)

    def arrived(self) -> None:
        """The stats have counted another piece: at both ends `run` does not sleep while enough is unsaved."""
        if self._unsaved >= self._enough < UNSAVED:
            self._at_once.set()

    async def run(self, torrent: DurableTorrent) -> None:
        """Save whenever a save is due, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(SAVE_EVERY):
                    await self._at_once.wait()
            self._at_once.clear()
            if self.due:
                with suppress(Unavailable):  # a slow disk: the record only stays older
                    await self.save(torrent)

    async def save(self, torrent: DurableTorrent) -> None:
        """Have received pieces written, and record them, unless none is missing. Raises Unavailable when the disk takes
        too long."""
        async with self._turn:
            if self._stats.missing:
                await self._save(torrent)

    async def save_whole(self, torrent: DurableTorrent) -> None:
        """The same before a whole file is hashed, even if none is missing: a load goes on with its last pieces
        meanwhile. The file must not be published before this returns."""
        async with self._turn:
            if self._saved != self._stats.done:
                await self._save(torrent)

    @property
    def _enough(self) -> int:
        """Unsaved bytes for which a save is due at once."""
        to_come = self._stats.total - self._stats.done
        return min(UNSAVED, max(LEAST_UNSAVED, min(self._saved, to_come)))

    @property
    def _unsaved(self) -> int:
        return self._stats.done - self._saved

    async def _save(self, torrent: DurableTorrent) -> None:
        began, done = self._clock(), self._stats.done
        try:
            self.durable = durable = await torrent.durable()
            changed = durable ^ self._recorded
            await asyncio.to_thread(self._pieces.save, durable, changed)
            self._recorded, self._saved = durable, done
        finally:
            ended = self._clock()
            self._rests_until = ended + min((ended - began) / SHARE, LATEST)
