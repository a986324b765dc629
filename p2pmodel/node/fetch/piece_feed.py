"""Feeding a swarm from scarce sources: pieces are pulled by ranges, checked here, and handed to the engine.

With leases, those that are ours: from a seeder, else from a mirror. Without, orphans that `OrphanPieces` chooses.

libtorrent's own webseed client is never pointed at a mirror: it gives a file up for ever after one HTTP error,
ignores Retry-After, and cannot be told which pieces to leave to other peers.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from typing import Protocol

from p2pmodel.coordinator.leases import Demand, Grant, bits_of
from p2pmodel.core.manifest import Manifest, ManifestFile
from p2pmodel.core.rate import Rate
from p2pmodel.errors import P2PModelError, Unavailable
from p2pmodel.node.fetch.orphans import OrphanPieces
from p2pmodel.swarm.engine import SwarmStatus, SwarmTorrent
from p2pmodel.swarm.peer_ids import is_ours
from p2pmodel.swarm.torrents import Metainfo

TICK = 0.5
RETRY_AFTER = 10.0
MEETING = 1.5
"""Seconds after joining in which a peer that has a piece has been met, if there is one."""
MEET_EVERY = 1.0
"""Seconds after which it is looked again who else lacks something."""
AHEAD = 0.5
"""Seconds of pulling that are leased ahead."""
MOST_LEASED = 64


class PieceReader(Protocol):
    """A scarce source: mirrors (`Origin`) or seeders (`Seeders`)."""

    async def read(
        self, manifest: Manifest, file: ManifestFile, offset: int, length: int, *, accept: Callable[[bytes], bool]
    ) -> bytes:
        """As `Origin.read`."""


class NearSource(PieceReader, Protocol):
    """Seeders, which are asked before mirrors while they are `usable`."""

    @property
    def usable(self) -> bool:
        """Whether it is worth asking them."""


class PieceFeed:
    """Pulls pieces for one torrent until cancelled, those of `grant` if there is one, else what `OrphanPieces` chooses.

    `needed()` gives the pieces still missing; `origin_bytes` came from mirrors before this began. `meeting`: seconds in
    which peers that have a piece are met, if MEETING is not enough.

    When no mirror answers, all of them are left alone for a while; when none has a file right, or gives access to it,
    that file is, and the pieces of others still come. The transfer decides whether a failure ends it.
    """

    def __init__(
        self,
        torrent: SwarmTorrent,
        metainfo: Metainfo,
        origin: PieceReader | None,
        pulling: OrphanPieces,
        needed: Callable[[], frozenset[int]],
        *,
        seeders: NearSource | None = None,
        origin_bytes: int = 0,
        meeting: float | None = None,
    ) -> None:
        self._torrent = torrent
        self._metainfo = metainfo
        self._origin = origin
        self._seeders = seeders
        self._pulling = pulling
        self._needed = needed
        self._in_flight: dict[int, asyncio.Task[None]] = {}
        self._paused_until = 0.0
        self._silence: Unavailable | None = None
        self._refused: dict[int, tuple[float, P2PModelError]] = {}
        """By file: until when it is left alone, and why."""
        self._grant: Grant | None = None
        self._late = False
        self._told_near = False
        self._news = asyncio.Event()
        self._began = time.monotonic()
        self._meeting = meeting
        self._rivals: frozenset[str] = frozenset()
        self._rivals_met = -math.inf
        self._rate = Rate()
        # Pieces of small files are small: the torrent's piece length says nothing of them.
        self._mean_piece = metainfo.manifest.total_size / max(metainfo.layout.piece_count, 1)
        self.fed: set[int] = set()
        """Pieces handed to the engine, and not rejected by it."""
        self.from_mirrors: set[int] = set()
        """Those of them that came from mirrors."""
        self.from_seeders: set[int] = set()
        self.origin_bytes = origin_bytes
        """Bytes of pieces that came from mirrors."""

    @property
    def failure(self) -> P2PModelError | None:
        """Why the mirrors did not help when last asked, for all files or for some file; None while they do."""
        return next((error for _, error in self._refused.values()), self._silence)

    @property
    def active(self) -> bool:
        """Whether a mirror is being asked right now."""
        return bool(self._in_flight)

    @property
    def met_at(self) -> float:
        """When (`time.monotonic()`) mirrors are asked at the latest: peers that may have what we lack are met first."""
        return self._began + (MEETING if self._meeting is None else self._meeting)

    @property
    def grant(self) -> Grant | None:
        """What a coordinator lets us pull; None without one."""
        return self._grant

    @property
    def over_budget(self) -> bool:
        """Whether the mirrors may not be asked because the swarm has taken enough from them."""
        return self._grant is not None and self._grant.refused and not self._near

    def take(self, grant: Grant | None, *, late: bool = False) -> None:
        """Pull what `grant` says from now on; `late`: only once peers were met that may have it."""
        self._grant, self._late = grant, late
        self._news.set()

    def demand(self) -> Demand:
        """What to tell the coordinator."""
        status, near = self._torrent.status(), self._near
        coming = self._rate.value()
        now = time.monotonic()
        can_pull = near or (self._origin is not None and now >= self._paused_until)
        if self._is_early(now, near=near):
            can_pull = False
        self._told_near = near
        ahead = 2 + int(coming * AHEAD / self._mean_piece)
        orphans = self._orphans(status)
        return Demand(
            scarce=bits_of(orphans if near else orphans - self._left_alone(now)),
            near=near,
            want=min(ahead, MOST_LEASED) if can_pull else 0,
            origin_bytes=self.origin_bytes,
            leased=bits_of(self._in_flight),
        )

    async def run(self) -> None:
        """Pull until cancelled; no request outlives this call."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._news.clear()
                    await self._meet_rivals()
                    self._stop_needless_pulls()
                    self._start_pulls(group)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._pause()):
                            await self._news.wait()
        finally:
            self._in_flight.clear()

    def _pause(self) -> float:
        """Seconds until it is worth looking again what to pull: a grant says by itself that it has changed."""
        return TICK if self._grant is not None or not self._in_flight else TICK / 10

    @property
    def _near(self) -> bool:
        return self._seeders is not None and self._seeders.usable

    def _is_early(self, now: float, *, near: bool) -> bool:
        """Whether peers that may have what we lack have not been met yet. Seeders are spared that only where nobody can
        have anything: all start together."""
        return self._grant is not None and (self._late or not near) and now < self.met_at

    async def _meet_rivals(self) -> None:
        """Hear who else pulls what it lacks, if nobody tells us which pieces are ours."""
        now = time.monotonic()
        if self._grant is not None or now < self._rivals_met + MEET_EVERY:
            return
        met = await self._torrent.connections()
        if met or not self._torrent.status().peers:  # else the engine does not say now
            self._rivals = frozenset(c.peer_id for c in met if is_ours(c.peer_id) and c.progress < 1)
        self._rivals_met = now

    def _orphans(self, status: SwarmStatus) -> set[int]:
        """Missing pieces that no connected peer has."""
        held = status.availability
        missing = self._needed() - self.fed
        return {p for p in missing if not held or not held[p]}

    def _stop_needless_pulls(self) -> None:
        status = self._torrent.status()
        asked = self._in_flight.keys() - self.fed
        for piece in self._pulling.needless(time.monotonic(), self._needed(), status.availability, asked):
            self._in_flight[piece].cancel()

    def _start_pulls(self, group: asyncio.TaskGroup) -> None:
        now = time.monotonic()
        for piece in self._choose(now):
            self._in_flight[piece] = group.create_task(self._pull(piece))

    def _choose(self, now: float) -> list[int]:
        status, near = self._torrent.status(), self._near
        busy = frozenset(self._in_flight)
        missing = self._needed() - self.fed - self._left_alone(now)
        if self._is_early(now, near=near):
            return []
        if self._grant is None:
            chosen = self._pulling.choose(now, missing, status.availability, self._rivals, busy, at_once=near)
        else:
            orphans = self._orphans(status)
            chosen = [p for p in self._grant.pieces if p in orphans and p in missing and p not in busy]
        if not near and (self._origin is None or now < self._paused_until):
            return []
        if not near and self._grant is not None and self._told_near:
            return []  # leased for a seeder: only a coordinator that knows can say what the budget leaves
        return chosen

    def _left_alone(self, now: float) -> set[int]:
        spans = self._metainfo.layout.spans
        return {p for index, (until, _) in self._refused.items() if now < until for p in spans[index].pieces}

    async def _pull(self, piece: int) -> None:
        place = self._metainfo.layout.piece_range(piece)
        source: PieceReader | None = self._seeders if self._near else self._origin
        try:
            if source is not None:
                await self._pull_from(source, piece)
            self._silence = None
            self._refused.pop(place.span.index, None)
        except P2PModelError as error:
            if source is self._origin or self._origin is None:  # else mirrors are asked next
                self._note_failure(place.span.index, error)
        finally:
            self._in_flight.pop(piece, None)
            if self._grant is not None:
                self._news.set()  # else not so soon: who has what by now must be heard first, or all pull the same

    def _note_failure(self, file: int, error: P2PModelError) -> None:
        until = time.monotonic() + RETRY_AFTER
        if isinstance(error, Unavailable):
            self._silence, self._paused_until = error, until
        else:
            self._refused[file] = until, error

    async def _pull_from(self, source: PieceReader, piece: int) -> None:
        place = self._metainfo.layout.piece_range(piece)
        data = await source.read(
            self._metainfo.manifest,
            self._metainfo.manifest.files[place.span.index],
            place.offset,
            place.length,
            accept=lambda received: self._metainfo.accepts(piece, received),
        )
        if source is self._origin:
            self.origin_bytes += len(data)
            self.from_mirrors.add(piece)
        else:
            self.from_seeders.add(piece)
        self._rate.add(len(data))
        if piece in self._needed():
            await self._feed(piece, data)

    async def _feed(self, piece: int, data: bytes) -> None:
        taken = False
        self.fed.add(piece)
        try:
            taken = await self._torrent.feed(piece, data)
        finally:
            if not taken:
                self.fed.discard(piece)
