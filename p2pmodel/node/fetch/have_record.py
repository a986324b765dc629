"""The record on disk of which pieces of a transfer are durable, so that the next run need not check or fetch them."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from p2pmodel.core.bitfield import pack, unpack
from p2pmodel.core.layout import MIB
from p2pmodel.errors import Unavailable
from p2pmodel.node.fetch.piece_stats import PieceStats
from p2pmodel.store.staging import Staging
from p2pmodel.swarm.torrents import Metainfo

SAVE_EVERY = 0.25
"""Seconds between saves, at least. The engine keeps what arrives in memory until it is told to write, so this is also
what a kill -9 costs, beside the pieces in flight."""
SHARE = 0.01
"""The part of the time that saves may take; they become rarer where it would be more. A save takes 2 ms on a quiet
machine and 3 where 32 nodes share two cores, and costs the engine about as much again: there they were a tenth of what
a node needs (64 MB at 10 Mbit/s: 35.9 CPU seconds a GB with four a second, 32.2 with half this share)."""
LATEST = 1.0
"""Seconds after which a save is not put off any longer: a client that reads a file while it arrives waits for it."""
UNSAVED = 32 * MIB
"""Nor once so many bytes have arrived that are not saved."""


class Writes(Protocol):
    """What a record needs of a SwarmTorrent."""

    async def durable(self) -> frozenset[int]:
        """As `SwarmTorrent.durable`."""


class HaveRecord:
    """Of one transfer; `clock` counts seconds."""

    def __init__(
        self, staging: Staging, metainfo: Metainfo, tally: PieceStats, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._staging = staging
        self._info_hash = metainfo.info_hash
        self._count = metainfo.layout.piece_count
        self._tally = tally
        self._clock = clock
        self._saved = 0
        self._rests_until = 0.0
        self.durable: frozenset[int] = frozenset()
        """Pieces that are right and can be read from their files, as of the last save."""

    async def load(self) -> frozenset[int]:
        """What an earlier run recorded; nothing if it left no record that fits the torrent."""
        field = await asyncio.to_thread(self._staging.load_have, self._info_hash)
        try:
            return unpack(field, self._count) if field else frozenset()
        except ValueError:
            return frozenset()

    def begin(self, have: frozenset[int]) -> None:
        """The transfer joins with `have` on disk, which the tally counts."""
        self.durable, self._saved = have, self._tally.done

    @property
    def due(self) -> bool:
        """Whether it is time for another save."""
        unsaved = self._tally.done - self._saved
        return unsaved >= UNSAVED or (unsaved > 0 and self._clock() >= self._rests_until)

    async def run(self, torrent: Writes) -> None:
        """Save whenever it is due, until cancelled."""
        while True:
            await asyncio.sleep(SAVE_EVERY)
            if self.due:
                with suppress(Unavailable):  # a disk that takes its time: the record is older, nothing else
                    await self.save(torrent)

    async def save(self, torrent: Writes) -> None:
        """Have what has arrived written, and record it. Raises Unavailable when the disk takes too long."""
        if not self._tally.missing:
            return
        began, done = self._clock(), self._tally.done
        try:
            self.durable = await torrent.durable()
            field = pack(self.durable, self._count)
            await asyncio.to_thread(self._staging.save_have, self._info_hash, field)
            self._saved = done
        finally:
            ended = self._clock()
            self._rests_until = ended + min((ended - began) / SHARE, LATEST)
