"""Download one file from two honest mirrors and one with a random fault; the file must be complete and correct."""

import asyncio
import random
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.core.content.layout import MIB
from p2pmodel.origin.origin import Origin
from p2pmodel.store.files.partial_file import PartialFile
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import HubSnapshot, snapshot_of

PATH = "model.safetensors"
REFUSED, DNS, TLS, KILL = "refused", "dns", "tls", "kill"
FAULTS = (
    *(REFUSED, DNS, TLS, KILL),
    *("drop:100000", "drop:0", "stall", "stall:100000", "truncate", "badrange", "gzip", "html", "flip"),
    *("status:400", "status:401", "status:403", "status:404", "status:410", "status:416", "gated"),
    *("500:99", "502:99", "503:99", "429:99", "retry:99", "retry-date:99", "rate-limit:99"),
    *("other-commit", "norange", "redirect", "loop", "expire:0.3"),
)
RATES = (1_000_000, 2_000_000, 4_000_000)


@dataclass(frozen=True)
class ToxicRun:
    """How one run ended. `gap`: the longest time without a byte, in seconds."""

    fault: str
    place: int
    seconds: float
    received: int
    wasted: int
    gap: float
    right: bool
    notes: list[str] = field(default_factory=list)


def model(size: int) -> HubSnapshot:
    """A snapshot of one file."""
    return snapshot_of({PATH: random.Random(size).randbytes(size)})


async def toxic_run(snapshot: HubSnapshot, fault: str, dice: random.Random) -> ToxicRun:
    """Pull the file with mirrors of 1, 2 and 4 MB/s in random order, one of which (the preferred one half of the
    time) has `fault` from some point on. Killed is always the quickest. Raises what the pull raises."""
    rates = list(RATES)
    dice.shuffle(rates)
    toxic = rates.index(max(rates)) if fault == KILL else dice.choice([0, 0, 1, 2])
    midway = dice.choice(["", "+300000"])
    async with AsyncExitStack() as stack:
        hubs = [FakeHub(snapshot, rate=rate) for rate in rates]
        for hub in hubs:
            await stack.enter_async_context(hub)
        urls = [hub.url for hub in hubs]
        if fault in (REFUSED, DNS, TLS):
            addresses = {REFUSED: "http://127.0.0.1:9", DNS: "http://no-such.invalid"}
            urls[toxic] = addresses.get(fault) or urls[toxic].replace("http:", "https:")
        elif fault != KILL:
            urls[toxic] = await _replaced(hubs[toxic], snapshot, fault + midway, rates[toxic], stack)
        return await _pull(snapshot, urls, fault, toxic, hubs[toxic] if fault == KILL else None)


async def _replaced(hub: FakeHub, snapshot: HubSnapshot, fault: str, rate: int, stack: AsyncExitStack) -> str:
    await hub.__aexit__()
    return (await stack.enter_async_context(FakeHub(snapshot, faults=[fault], rate=rate))).url


async def _pull(snapshot: HubSnapshot, urls: list[str], fault: str, toxic: int, victim: FakeHub | None) -> ToxicRun:
    file, notes = snapshot.file(PATH), list[str]()
    listed = [MirrorSettings(name=name, endpoint=url) for name, url in zip("abc", urls, strict=True)]
    arrivals = _Arrivals(file.size // 2, victim)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        async with (
            Origin(listed, OriginSettings(part_size=MIB // 2), on_note=notes.append) as origin,
            PartialFile.open(path, file, MIB) as partial,
        ):
            await origin.pull(snapshot.manifest, file, partial, on_bytes=arrivals.see)
            seconds = time.monotonic() - arrivals.times[0]
            received, wasted = sum(origin.bytes_by_mirror.values()), origin.wasted_bytes
        await arrivals.end()
        right = await asyncio.to_thread(path.read_bytes) == snapshot.contents[PATH]
    return ToxicRun(fault, toxic, seconds, received, wasted, arrivals.gap, right, notes)


class _Arrivals:
    """When bytes came; kills `victim` once `midway` bytes are there."""

    def __init__(self, midway: int, victim: FakeHub | None) -> None:
        self.times = [time.monotonic()]
        self._midway, self._victim = midway, victim
        self._held = 0
        self._killing: asyncio.Task[None] | None = None

    def see(self, length: int) -> None:
        self.times.append(time.monotonic())
        self._held += length
        if self._victim is not None and self._killing is None and self._held >= self._midway:
            self._killing = asyncio.ensure_future(self._victim.__aexit__())

    @property
    def gap(self) -> float:
        """The longest time without a byte, in seconds."""
        return max(after - before for before, after in pairwise(self.times))

    async def end(self) -> None:
        """Wait until the victim is dead."""
        if self._killing is not None:
            await self._killing
