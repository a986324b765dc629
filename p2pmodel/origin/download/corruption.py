"""Check of a whole file against its hash, and tracing of wrong bytes to the mirror that sent them.

If the file is complete but wrong:
1. bytes that an earlier run left have no known mirror: they are fetched again first, and no mirror is blamed;
2. if one mirror sent all the rest, it is quarantined, and everything is fetched from the others;
3. if several did, samples of each mirror's bytes are requested again elsewhere and compared: that gives the order of
   suspicion. Then the bytes of one suspect are fetched again from the others. If the hash is right now, that mirror
   alone is quarantined; if not, the next suspect follows;
4. if that does not help (several sent wrong bytes), the file is fetched wholly from single mirrors in turn.
"""

from collections import Counter
from collections.abc import Awaitable, Callable

from p2pmodel.core import notes
from p2pmodel.errors import WrongBytes
from p2pmodel.origin.download.job import MirrorJob, NoMirrorLeft, RangeSink
from p2pmodel.origin.download.ledger import Ledger, LedgerEntry
from p2pmodel.origin.failures import Refused
from p2pmodel.origin.mirrors.mirror import Mirror
from p2pmodel.origin.mirrors.pool import MirrorPool
from p2pmodel.origin.responses import ExpectedRange
from p2pmodel.origin.verdict import expected

_SAMPLES = 3
_SAMPLE = 1 << 14


class CorruptionTrace:
    """One file, from its first missing byte to the right hash. `complete` fills the sink from the job's mirrors."""

    def __init__(
        self,
        pool: MirrorPool,
        job: MirrorJob,
        sink: RangeSink,
        ledger: Ledger,
        complete: Callable[[], Awaitable[None]],
    ) -> None:
        self._pool = pool
        self._job = job
        self._sink = sink
        self._ledger = ledger
        self._complete = complete

    async def run(self) -> None:
        """Return when the sink holds the right bytes. Raises NoMirrorLeft."""
        while (got := await self._wrong()) is not None:
            file, names = self._job.file, self._ledger.names()
            if file.size == 0:
                raise WrongBytes("the manifest", file.path, expected(file), f"no bytes, with the hash {got}")
            if left_over := self._ledger.unattributed(file.size):
                for offset, length in left_over:
                    await self._sink.forget(offset, length)
            elif len(names) == 1:
                self._blame(names[0], got)
                await self._discard()
            else:
                await self._trace(names, got)
                return

    async def _wrong(self) -> str | None:
        """The wrong hash of the complete file; None if it is right, which verifies all mirrors that sent bytes."""
        await self._complete()
        got = await self._sink.digest()
        if got != self._job.file.etag:
            return got
        now = self._pool.clock.now()
        for name in self._ledger.names():
            self._pool.named(name).verified(now)
        return None

    async def _trace(self, names: list[str], got: str) -> None:
        self._pool.notes.add(
            notes.warning(
                "file_corrupt",
                f"{self._job.file.path} fails its hash: checking what each mirror sent",
                file=self._job.file.path,
            ),
            "traced",
        )
        doubts = await self._doubts(names)
        suspects = sorted(names, key=lambda n: (-doubts[n], -self._pool.named(n).health.corruptions, names.index(n)))
        for name in suspects:
            if any(m.name != name for m in self._job.candidates()) and await self._right_without(name, got):
                return
        await self._singly()

    async def _right_without(self, name: str, got: str) -> bool:
        entries = self._ledger.of(name)
        self._waste(name)
        self._ledger.forget(name)
        for entry in entries:
            await self._sink.forget(entry.start, entry.end - entry.start)
        with self._job.without(name):
            try:
                wrong = await self._wrong()
            except NoMirrorLeft:
                self._job.progressed()
                return False
        if wrong is None:
            self._blame(name, got)
        return wrong is None

    async def _singly(self) -> None:
        for mirror in self._job.candidates():
            await self._discard()
            self._job.restrict_to(mirror)
            try:
                got = await self._wrong()
            except NoMirrorLeft:
                continue
            if got is None:
                return
            self._blame(mirror.name, got)
        raise NoMirrorLeft

    async def _doubts(self, names: list[str]) -> Counter[str]:
        """By mirror, how often a sample of its bytes differs from what other mirrors send."""
        doubts: Counter[str] = Counter()
        for name in names:
            for entry in self._ledger.of(name)[:_SAMPLES]:
                others = [m for m in self._fit() if m.name != name][:2]
                samples = [(m.name, await self._sample(m, entry)) for m in others]
                sent = await self._sink.read(entry.start, _length(entry))
                against = [other for other, sample in samples if sample is not None and sample != sent]
                same = [other for other, sample in samples if sample == sent]
                doubts[name] += len(against) - len(same)
                # Two agree against one.
                for other in against if same else ():
                    doubts[other] += 2
        return doubts

    def _fit(self) -> list[Mirror]:
        now = self._pool.clock.now()
        return [m for m in self._job.candidates() if not (m.health.demoted(now) or m.health.quarantined(now))]

    async def _sample(self, mirror: Mirror, entry: LedgerEntry) -> bytes | None:
        held: list[bytes] = []

        async def deliver(_offset: int, data: bytes) -> bool:
            held.append(data)
            mirror.wasted(len(data))
            return True

        job, end = self._job, entry.start + _length(entry)
        async with mirror.slots:
            whole = await job.request(mirror, ExpectedRange(job.manifest, job.file, entry.start, end), deliver)
        return b"".join(held) if whole else None

    def _blame(self, name: str, got: str) -> None:
        refusal = Refused(f"expected {expected(self._job.file)}, got {got}", WrongBytes, got)
        self._job.refuse(self._pool.named(name), refusal)

    async def _discard(self) -> None:
        for name in self._ledger.names():
            self._waste(name)
        self._ledger.clear()
        await self._sink.discard()

    def _waste(self, name: str) -> None:
        self._pool.named(name).wasted(sum(e.end - e.start for e in self._ledger.of(name)))


def _length(entry: LedgerEntry) -> int:
    return min(_SAMPLE, entry.end - entry.start)
