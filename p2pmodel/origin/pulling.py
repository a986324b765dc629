"""Pulling one whole file into a sink, over several connections, and holding it to the hash the hub vouches for.

When the file is whole but wrong:
- one mirror supplied every byte: it lied, and is out of this job;
- several did: nobody can be blamed, so the file is pulled again wholly from single mirrors in turn.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from p2pmodel.errors import WrongBytes
from p2pmodel.origin.failures import RangesIgnored, Refused
from p2pmodel.origin.job import Job, NoneLeft
from p2pmodel.origin.mirror import Mirror
from p2pmodel.origin.responses import Wanted
from p2pmodel.origin.sink import RangeSink
from p2pmodel.origin.verdict import expected


@dataclass(slots=True)
class _Part:
    """A range still to come; `start` moves up as its bytes arrive."""

    start: int
    end: int


class Pull:
    """One file on its way from the mirrors to a sink."""

    def __init__(self, job: Job, sink: RangeSink, part_size: int, on_bytes: Callable[[int], None]) -> None:
        self._job = job
        self._sink = sink
        self._part_size = part_size
        self._on_bytes = on_bytes
        self._supplied: Counter[str] = Counter()
        """Bytes in the sink by mirror; what an earlier run left there is nobody's."""

    async def run(self) -> None:
        """Return when the sink holds the right bytes. Raises `Job.verdict`, or what the sink raises."""
        try:
            while not await self._complete_and_right():
                if self._job.only is None and len(self._supplied) > 1:
                    await self._singly()
                    return
        except NoneLeft:
            raise self._job.verdict() from None

    async def _complete_and_right(self) -> bool:
        await self._complete()
        got = await self._sink.digest()
        file = self._job.file
        if got == file.etag:
            return True
        if file.size == 0:
            raise WrongBytes("the manifest", file.path, expected(file), f"no bytes, whose hash is {got}")
        if sum(self._supplied.values()) == file.size and len(self._supplied) == 1:
            self._blame(next(iter(self._supplied)), got)
        if len(self._supplied) <= 1:
            await self._discard()
        return False

    def _blame(self, name: str, got: str) -> None:
        mirror = next(m for m in self._job.candidates() if m.name == name)
        self._job.refuse(mirror, Refused(f"expected {expected(self._job.file)}, got {got}", WrongBytes, got))

    async def _discard(self) -> None:
        self._supplied.clear()
        await self._sink.discard()

    async def _singly(self) -> None:
        for mirror in self._job.candidates():
            await self._discard()
            self._job.start_over(mirror)
            try:
                if await self._complete_and_right():
                    return
            except NoneLeft:
                continue
        raise NoneLeft

    async def _complete(self) -> None:
        job = self._job
        while missing := self._sink.missing():
            mirror = await job.next_mirror()
            try:
                if mirror.name in job.rangeless:
                    await self._take_whole(mirror, missing)
                else:
                    await self._take_parts(missing)
            except RangesIgnored:
                continue

    async def _take_parts(self, missing: Iterable[tuple[int, int]]) -> None:
        parts = deque(
            _Part(start, min(start + self._part_size, offset + length))
            for offset, length in missing
            for start in range(offset, offset + length, self._part_size)
        )
        connections = max(m.settings.max_connections for m in self._job.candidates())
        await _all(self._connection(parts) for _ in range(min(connections, len(parts))))

    async def _connection(self, parts: deque[_Part]) -> None:
        while parts:
            part = parts.popleft()
            while part.start < part.end:
                await self._ask(part)

    async def _ask(self, part: _Part) -> None:
        job = self._job
        mirror = await job.next_mirror()
        if mirror.name in job.rangeless:
            raise RangesIgnored
        wanted = Wanted(job.manifest, job.file, part.start, part.end)
        await job.attempt(mirror, wanted, partial(self._deliver, mirror.name, part))

    async def _deliver(self, name: str, part: _Part, offset: int, data: bytes) -> None:
        await self._sink.write(offset, data)
        part.start = offset + len(data)
        self._supplied[name] += len(data)
        self._job.progressed()
        self._on_bytes(len(data))

    async def _take_whole(self, mirror: Mirror, missing: list[tuple[int, int]]) -> None:
        parts = [_Part(offset, offset + length) for offset, length in missing]

        async def deliver(offset: int, data: bytes) -> None:
            for part in parts:
                start, end = max(offset, part.start), min(offset + len(data), part.end)
                if start < end:
                    await self._deliver(mirror.name, part, start, data[start - offset : end - offset])

        job = self._job
        await job.attempt(mirror, Wanted(job.manifest, job.file, 0, job.file.size), deliver)


async def _all(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run them side by side; at the first error cancel the rest, wait for their end and raise it."""
    tasks = [asyncio.ensure_future(c) for c in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
