"""Holding a whole file to its hash, and tracing wrong bytes to the mirror that sent them.

When the file is whole but wrong:
1. bytes that an earlier run left are in nobody's name: they go first, and nobody is blamed;
2. one mirror sent all the rest: it lied, and everything is pulled from the others;
3. several did: samples of what each sent are asked for again elsewhere and compared, which says whom to doubt first.
   Then what one mirror sent is pulled again from the others: if the hash is right now, that mirror lied, and it alone
   is quarantined. If not, it is the next one's turn;
4. when that does not help (several lied), the file is pulled wholly from single mirrors in turn.
"""

from collections import Counter
from collections.abc import Awaitable, Callable

from p2pmodel.errors import WrongBytes
from p2pmodel.origin.download.job import MirrorJob, NoMirrorLeft
from p2pmodel.origin.download.ledger import Ledger, LedgerEntry
from p2pmodel.origin.download.sink import RangeSink
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
        fleet: MirrorPool,
        job: MirrorJob,
        sink: RangeSink,
        ledger: Ledger,
        complete: Callable[[], Awaitable[None]],
    ) -> None:
        self._fleet = fleet
        self._job = job
        self._sink = sink
        self._ledger = ledger
        self._complete = complete

    async def run(self) -> None:
        """Return when the sink holds the right bytes. Raises NoneLeft."""
        while (got := await self._wrong()) is not None:
            file, names = self._job.file, self._ledger.names()
            if file.size == 0:
                raise WrongBytes("the manifest", file.path, expected(file), f"no bytes, whose hash is {got}")
            if left_over := self._ledger.nobodys(file.size):
                for offset, length in left_over:
                    await self._sink.forget(offset, length)
            elif len(names) == 1:
                self._blame(names[0], got)
                await self._discard()
            else:
                await self._trace(names, got)
                return

    async def _wrong(self) -> str | None:
        """The wrong hash of the complete file; None if it is right, which speaks for all who sent it."""
        await self._complete()
        got = await self._sink.digest()
        if got != self._job.file.etag:
            return got
        now = self._fleet.clock.now()
        for name in self._ledger.names():
            mirror = self._mirror(name)
            mirror.health = mirror.health.proved(now)
        return None

    async def _trace(self, names: list[str], got: str) -> None:
        self._fleet.notes.say(f"{self._job.file.path} fails its hash: asking again who sent what", "traced")
        doubts = await self._doubts(names)
        for name in sorted(names, key=lambda n: (-doubts[n], -self._mirror(n).health.lies, names.index(n))):
            if any(m.name != name for m in self._job.candidates()) and await self._right_without(name, got):
                return
        await self._singly()

    async def _right_without(self, name: str, got: str) -> bool:
        job, entries = self._job, self._ledger.of(name)
        self._mirror(name).wasted += sum(e.end - e.start for e in entries)
        self._ledger.forget(name)
        for entry in entries:
            await self._sink.forget(entry.start, entry.end - entry.start)
        job.without = name
        try:
            if await self._wrong() is None:
                job.without = None
                self._blame(name, got)
                return True
        except NoMirrorLeft:
            job.progressed()
        finally:
            job.without = None
        return False

    async def _singly(self) -> None:
        for mirror in self._job.candidates():
            await self._discard()
            self._job.start_over(mirror)
            try:
                got = await self._wrong()
            except NoMirrorLeft:
                continue
            if got is None:
                return
            self._blame(mirror.name, got)
        raise NoMirrorLeft

    async def _doubts(self, names: list[str]) -> Counter[str]:
        """How often a sample of what each sent differs from what others send."""
        doubts: Counter[str] = Counter()
        for name in names:
            for entry in self._ledger.of(name)[:_SAMPLES]:
                others = [m for m in self._fit() if m.name != name][:2]
                answers = [(m.name, await self._sample(m, entry)) for m in others]
                sent = await self._sink.read(entry.start, _length(entry))
                against = [other for other, answer in answers if answer is not None and answer != sent]
                same = [other for other, answer in answers if answer == sent]
                doubts[name] += len(against) - len(same)
                # Two agree against one.
                for other in against if same else ():
                    doubts[other] += 2
        return doubts

    def _fit(self) -> list[Mirror]:
        now = self._fleet.clock.now()
        return [m for m in self._job.candidates() if not (m.health.demoted(now) or m.health.quarantined(now))]

    async def _sample(self, mirror: Mirror, entry: LedgerEntry) -> bytes | None:
        held: list[bytes] = []

        async def deliver(_offset: int, data: bytes) -> bool:
            held.append(data)
            mirror.wasted += len(data)
            return True

        job, end = self._job, entry.start + _length(entry)
        async with mirror.slots:
            whole = await job.ask(mirror, ExpectedRange(job.manifest, job.file, entry.start, end), deliver)
        return b"".join(held) if whole else None

    def _blame(self, name: str, got: str) -> None:
        refusal = Refused(f"expected {expected(self._job.file)}, got {got}", WrongBytes, got)
        self._job.refuse(self._mirror(name), refusal)

    async def _discard(self) -> None:
        for name in self._ledger.names():
            self._mirror(name).wasted += sum(e.end - e.start for e in self._ledger.of(name))
        self._ledger.clear()
        await self._sink.discard()

    def _mirror(self, name: str) -> Mirror:
        return next(m for m in self._fleet.mirrors if m.name == name)


def _length(entry: LedgerEntry) -> int:
    return min(_SAMPLE, entry.end - entry.start)
