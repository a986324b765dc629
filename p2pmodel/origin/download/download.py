"""Download of one file into a sink, from several mirrors over several connections, checked against the hub's hash.

`download/segments` assigns bytes to connections, `mirrors/health` selects the mirrors, `download/corruption` finds the
mirror that sent wrong bytes.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from p2pmodel.origin.download.corruption import CorruptionTrace
from p2pmodel.origin.download.job import NO_RANGES, MirrorJob, NoMirrorLeft, RangeSink
from p2pmodel.origin.download.ledger import Ledger
from p2pmodel.origin.download.segments import SegmentBoard, SegmentRequest, request_size
from p2pmodel.origin.failures import Failed
from p2pmodel.origin.mirrors.mirror import Mirror
from p2pmodel.origin.mirrors.pool import MirrorPool
from p2pmodel.origin.responses import ExpectedRange

_TICK = 0.1
_STALLED = 1.0


class FileDownload:
    """One file, from the mirrors into a sink."""

    def __init__(
        self,
        pool: MirrorPool,
        job: MirrorJob,
        sink: RangeSink,
        on_bytes: Callable[[int], None],
        *,
        ranges_only: bool = False,
    ) -> None:
        self._pool = pool
        self._job = job
        self._sink = sink
        self._on_bytes = on_bytes
        self._ranges_only = ranges_only
        self._ledger = Ledger()
        self._answers = 0
        self._began = time.monotonic()

    async def run(self) -> list[str]:
        """Fill the sink with the right bytes; names of the mirrors that sent them. Raises `MirrorJob.verdict`, or what
        the sink raises."""
        trace = CorruptionTrace(self._pool, self._job, self._sink, self._ledger, self.complete)
        try:
            await trace.run()
        except NoMirrorLeft:
            raise self._job.verdict() from None
        return self._ledger.names()

    async def complete(self) -> None:
        """Return when the sink misses nothing. Raises NoMirrorLeft."""
        job = self._job
        while missing := self._sink.missing():
            mirror = await job.next_mirror()
            if job.ranges_ignored(mirror) and self._ranges_only:
                job.refuse(mirror, NO_RANGES)
            elif job.ranges_ignored(mirror):
                await self._take_whole(mirror, missing)
            else:
                board = SegmentBoard(missing)
                with self._pool.pulling(board) as freed:
                    await _SegmentRequests(self._pool, job, board, self._write, self._began).run(freed)

    async def _write(self, mirror: Mirror, answer: int, offset: int, data: bytes) -> None:
        await self._sink.write(offset, data)
        self._ledger.add(answer, mirror.name, offset, offset + len(data))
        self._job.progressed()
        self._on_bytes(len(data))

    async def _take_whole(self, mirror: Mirror, missing: list[tuple[int, int]]) -> None:
        job, number = self._job, -1 - self._answers
        self._answers += 1

        async def deliver(offset: int, data: bytes) -> bool:
            new = 0
            for first, length in missing:
                start, end = max(offset, first), min(offset + len(data), first + length)
                if start < end:
                    await self._write(mirror, number, start, data[start - offset : end - offset])
                    new += end - start
            mirror.wasted(len(data) - new)
            return True

        await job.attempt(mirror, ExpectedRange(job.manifest, job.file, 0, job.file.size), deliver)


class _SegmentRequests:
    """The requests for one board: started on free connections, cancelled when their bytes are no longer needed."""

    def __init__(
        self,
        pool: MirrorPool,
        job: MirrorJob,
        board: SegmentBoard,
        write: Callable[[Mirror, int, int, bytes], Awaitable[None]],
        began: float,
    ) -> None:
        self._pool = pool
        self._job = job
        self._board = board
        self._write = write
        self._began = began
        self._tasks: dict[asyncio.Task[None], tuple[Mirror, SegmentRequest]] = {}
        self._writing: set[SegmentRequest] = set()

    async def run(self, freed: asyncio.Event) -> None:
        """Return when all bytes came, or when every mirror needs a wait first (`MirrorJob.next_mirror`)."""
        try:
            # The board counts a byte as held on receipt; it is in the sink only after the write.
            while self._board.left or self._writing:
                freed.clear()
                ready = await self._launch()
                if not ready and not self._tasks:
                    return
                await self._wait(freed)
                self._collect()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _launch(self) -> bool:
        """Start requests on free connections; whether there is any mirror to ask, its connections free or not."""
        waited = time.monotonic() - self._began
        team = self._job.team(self._pool.backlog(), waited)
        for mirror in team:
            while self._may_start(mirror):
                request = self._next_request(mirror, team)
                if request is None:
                    break
                await mirror.slots.acquire()
                mirror.request_began()
                task = asyncio.ensure_future(self._send(mirror, request))
                # Not a `finally` of the request: a task cancelled before its first step never runs one.
                task.add_done_callback(partial(self._ended, mirror, request))
                self._tasks[task] = mirror, request
        return bool(team)

    def _may_start(self, mirror: Mirror) -> bool:
        trusted = not (mirror.health.corruptions or mirror.health.rests)
        most = self._pool.share(mirror) if trusted else 1
        free = not mirror.slots.locked() and self._pool.has_room(mirror)
        return free and self._board.running(mirror.name) < most

    def _next_request(self, mirror: Mirror, team: list[Mirror]) -> SegmentRequest | None:
        now, clock = time.monotonic(), self._pool.clock.now()
        total, latency = mirror.quality.rate.known(clock), mirror.quality.first_byte.known(clock)
        rate = None if total is None else total / mirror.settings.max_connections
        connections = sum(m.settings.max_connections for m in team)
        part_size = self._pool.settings.part_size
        size = request_size(rate, latency, part_size, self._board.waiting, connections)
        request = self._board.take(mirror.name, size, now)
        if request is None and not self._pool.waiting():
            request = self._board.aid(mirror.name, rate, latency or 0.0, now)
        return request

    async def _send(self, mirror: Mirror, request: SegmentRequest) -> None:
        job, segment = self._job, request.segment
        if request.wanted:
            wanted = ExpectedRange(job.manifest, job.file, segment.start, segment.end)
            await job.request(mirror, wanted, partial(self._deliver, mirror, request))

    def _ended(self, mirror: Mirror, request: SegmentRequest, _: "asyncio.Task[None]") -> None:
        self._board.ended(request)
        mirror.request_ended()
        mirror.slots.release()
        self._pool.wake()

    async def _deliver(self, mirror: Mirror, request: SegmentRequest, offset: int, data: bytes) -> bool:
        start, end = self._board.received(request, offset, len(data), time.monotonic())
        mirror.wasted(len(data) - (end - start))
        if start < end:
            self._writing.add(request)
            await self._write(mirror, request.number, start, data[start - offset : end - offset])
            self._writing.discard(request)
        return request.wanted

    async def _wait(self, freed: asyncio.Event) -> None:
        waiting = asyncio.ensure_future(freed.wait())
        try:
            await asyncio.wait([*self._tasks, waiting], timeout=_TICK, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()

    def _collect(self) -> None:
        now = time.monotonic()
        for task, (mirror, request) in list(self._tasks.items()):
            if task.done():
                del self._tasks[task]
                with suppress(asyncio.CancelledError):
                    task.result()
            elif not request.wanted and request not in self._writing and not task.cancelling():
                # Another mirror was first. A write is never cancelled: the board counts its bytes as held.
                task.cancel()
                if now - request.last_byte_at >= _STALLED:
                    self._job.failed(mirror, Failed("stalled, another mirror was first"), no_bytes=True)
