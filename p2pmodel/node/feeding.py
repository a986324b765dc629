"""Feeding a swarm from the mirrors: orphan pieces are pulled, checked here, and handed to the engine.

libtorrent's own webseed client is never pointed at a mirror: it gives a file up for ever after one HTTP error,
ignores Retry-After, and cannot be told which pieces to leave to other peers.
"""

import asyncio
import time
from collections.abc import Callable

from p2pmodel.domain.pulling import Pulling
from p2pmodel.errors import P2PModelError, Unavailable
from p2pmodel.origin.origin import Origin
from p2pmodel.swarm.engine import SwarmTorrent
from p2pmodel.swarm.torrents import Metainfo

TICK = 0.5
RETRY_AFTER = 10.0


class MirrorFeed:
    """Pulls what `Pulling` chooses for one torrent until cancelled.

    `needed()` gives the pieces still missing. When no mirror answers, all of them are left alone for a while; when
    none has a file right, or gives access to it, that file is, and the pieces of others still come. The transfer
    decides whether a failure ends it.
    """

    def __init__(
        self,
        torrent: SwarmTorrent,
        metainfo: Metainfo,
        origin: Origin,
        pulling: Pulling,
        needed: Callable[[], frozenset[int]],
    ) -> None:
        self._torrent = torrent
        self._metainfo = metainfo
        self._origin = origin
        self._pulling = pulling
        self._needed = needed
        self._in_flight: dict[int, asyncio.Task[None]] = {}
        self._paused_until = 0.0
        self._silence: Unavailable | None = None
        self._refused: dict[int, tuple[float, P2PModelError]] = {}
        """By file: until when it is left alone, and why."""
        self.fed: set[int] = set()
        """Pieces handed to the engine, and not rejected by it."""

    @property
    def failure(self) -> P2PModelError | None:
        """Why the mirrors did not help when last asked, for all files or for some file; None while they do."""
        return next((error for _, error in self._refused.values()), self._silence)

    @property
    def active(self) -> bool:
        """Whether a mirror is being asked right now."""
        return bool(self._in_flight)

    async def run(self) -> None:
        """Pull until cancelled; no request outlives this call."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._stop_needless_pulls()
                    self._start_pulls(group)
                    await asyncio.sleep(TICK if not self._in_flight else TICK / 10)
        finally:
            self._in_flight.clear()

    def _stop_needless_pulls(self) -> None:
        status = self._torrent.status()
        asked = self._in_flight.keys() - self.fed
        for piece in self._pulling.needless(time.monotonic(), self._needed(), status.availability, asked):
            self._in_flight[piece].cancel()

    def _start_pulls(self, group: asyncio.TaskGroup) -> None:
        now = time.monotonic()
        status = self._torrent.status()
        busy = frozenset(self._in_flight)
        missing = self._needed() - self.fed - self._left_alone(now)
        chosen = self._pulling.choose(now, missing, status.availability, status.peers, busy)
        if now < self._paused_until:
            return
        for piece in chosen:
            self._in_flight[piece] = group.create_task(self._pull(piece))

    def _left_alone(self, now: float) -> set[int]:
        spans = self._metainfo.layout.spans
        return {p for index, (until, _) in self._refused.items() if now < until for p in spans[index].pieces}

    async def _pull(self, piece: int) -> None:
        place = self._metainfo.layout.piece_range(piece)
        try:
            file = self._metainfo.manifest.files[place.span.index]
            data = await self._origin.read(
                self._metainfo.manifest,
                file,
                place.offset,
                place.length,
                accept=lambda received: self._metainfo.accepts(piece, received),
            )
            if piece in self._needed():
                await self._feed(piece, data)
            self._silence = None
            self._refused.pop(place.span.index, None)
        except Unavailable as error:
            self._silence = error
            self._paused_until = time.monotonic() + RETRY_AFTER
        except P2PModelError as error:
            self._refused[place.span.index] = time.monotonic() + RETRY_AFTER, error
        finally:
            self._in_flight.pop(piece, None)

    async def _feed(self, piece: int, data: bytes) -> None:
        taken = False
        self.fed.add(piece)
        try:
            taken = await self._torrent.feed(piece, data)
        finally:
            if not taken:
                self.fed.discard(piece)
