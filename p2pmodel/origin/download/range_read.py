"""Download of one range that a check accepts, a piece for the swarm, or of the proof of blocks of a piece."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote

from p2pmodel.core.content.leaf_proof import PieceTree, Runs, proof_length, runs_text
from p2pmodel.core.pace import TRICKLE, trickle
from p2pmodel.errors import WrongBytes
from p2pmodel.origin.clock import Clock
from p2pmodel.origin.download.job import NO_RANGES, MirrorJob, NoMirrorLeft
from p2pmodel.origin.failures import Failed, Refused
from p2pmodel.origin.mirrors.mirror import Mirror
from p2pmodel.origin.requests import RangeRequests
from p2pmodel.origin.responses import ExpectedRange

CHECK_INLINE = 64 << 10
"""Bytes at most that are checked without a thread: the check takes 0.1 ms, less than the start of a thread."""


WITHIN = 3.0
"""Seconds in which a mirror must send more than a trickle while a read waits for it and another mirror is ready."""


class RangeRead:
    """One range, all of it from one mirror, so that a failed check names the right one.

    A mirror that sends a trickle is left for another one; bytes of all its requests count, since they share its link.
    """

    def __init__(
        self,
        job: MirrorJob,
        clock: Clock,
        offset: int,
        length: int,
        accept: Callable[[bytes], bool] | None,
        *,
        on_mirror: Callable[[str], None],
    ) -> None:
        self._job = job
        self._on_mirror = on_mirror
        self._clock = clock
        self._start = offset
        self._end = offset + length
        self._accept = accept
        self._held: list[bytes] = []
        self._source: str | None = None

    async def run(self) -> bytes:
        """The bytes, once accepted, if there is a check. Raises `MirrorJob.verdict`."""
        try:
            while True:
                mirror = await self._job.next_mirror()
                if await self._take(mirror):
                    data = b"".join(self._held)
                    if self._accept is None:
                        return data
                    if self._accept(data) if len(data) <= CHECK_INLINE else await asyncio.to_thread(self._accept, data):
                        mirror.verified(self._clock.now())
                        return data
                    self._blame(mirror)
        except NoMirrorLeft:
            raise self._job.verdict() from None

    async def _take(self, mirror: Mirror) -> bool:
        if mirror.name != self._source:
            self._source = mirror.name
            self._on_mirror(mirror.name)
            self._held.clear()
        job = self._job
        start = self._start + sum(map(len, self._held))
        wanted = ExpectedRange(job.manifest, job.file, start, self._end)
        whole = await self._watched(mirror, job.attempt(mirror, wanted, self._keep))
        if job.ranges_ignored(mirror):
            job.refuse(mirror, NO_RANGES)
        return whole

    async def _watched(self, mirror: Mirror, attempt: Coroutine[Any, Any, bool]) -> bool:
        """The outcome of `attempt`; False once the mirror has sent no more than a trickle."""
        request = asyncio.ensure_future(attempt)
        try:
            while True:
                before = mirror.counters.received
                done, _ = await asyncio.wait([request], timeout=WITHIN)
                if done:
                    return request.result()
                least = trickle(mirror.pace.limit) * WITHIN
                if mirror.counters.received - before < least and self._job.has_other(mirror):
                    self._job.failed(mirror, Failed(f"it sends less than {TRICKLE} bytes/s", slow=True), no_bytes=False)
                    return False
        finally:
            if not request.done():
                request.cancel()
                await asyncio.wait([request])

    async def _keep(self, offset: int, data: bytes) -> bool:  # noqa: ARG002
        self._held.append(data)
        self._job.progressed()
        return True

    def _blame(self, mirror: Mirror) -> None:
        mirror.wasted(sum(map(len, self._held)))
        self._held.clear()
        where = f"{self._start}-{self._end}"
        refusal = Refused(f"bytes {where} fail the hash of their piece", WrongBytes, f"other bytes at {where}")
        self._job.suspect(mirror, refusal)


class ProofRead:
    """One proof (`core/content/leaf_proof`), for `runs` of blocks of the piece with this `tree`, that `accept` returns
    True for. Mirrors of a hub do not serve proofs."""

    def __init__(
        self,
        requests: RangeRequests,
        job: MirrorJob,
        tree: PieceTree,
        runs: Runs,
        accept: Callable[[bytes], bool],
        *,
        within: float,
    ) -> None:
        manifest, path = job.manifest, quote(job.file.path)
        query = f"first={tree.first}&width={tree.width}&blocks={runs_text(runs)}"
        self._path = f"/{manifest.repo}/leaves/{manifest.commit}/{path}?{query}"
        self._requests = requests
        self._job = job
        self._length = proof_length(tree, runs)
        self._accept = accept
        self._within = within

    async def run(self) -> bytes:
        """The proof. Raises `MirrorJob.verdict`."""
        try:
            while True:
                mirror = await self._job.next_mirror()
                data = await self._ask(mirror)
                if data is not None and self._accept(data):
                    return data
                if data is not None:
                    mirror.wasted(len(data))
                    refusal = Refused("its hashes of blocks fail the hash of their piece", WrongBytes, "other hashes")
                    self._job.suspect(mirror, refusal)
        except NoMirrorLeft:
            raise self._job.verdict() from None

    async def _ask(self, mirror: Mirror) -> bytes | None:
        """The answer of `mirror`; None if it has none."""
        try:
            async with mirror.slots, asyncio.timeout(self._within):
                data = await self._requests.small_body(mirror, self._path, self._length)
        except TimeoutError:
            self._job.failed(mirror, Failed("no complete response", slow=True), no_bytes=True)
        except Failed as failure:
            self._job.failed(mirror, failure, no_bytes=True)
        except Refused as refusal:
            self._job.refuse(mirror, refusal)
        else:
            mirror.served()
            self._job.progressed()
            return data
        return None
