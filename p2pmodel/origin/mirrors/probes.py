"""Small probes: how quick the mirrors are that nothing is asked of, so that one that falls behind is noticed."""

import asyncio
import time

from p2pmodel.core.manifest import Manifest, ManifestFile
from p2pmodel.origin.download.job import MirrorJob
from p2pmodel.origin.mirrors.health import State
from p2pmodel.origin.mirrors.mirror import Mirror, compare
from p2pmodel.origin.mirrors.pool import MirrorPool
from p2pmodel.origin.responses import ExpectedRange

_LENGTH = 256 << 10
_EVERY = 60.0
_WORTH_ASKING = (State.HEALTHY, State.SLOW, State.TRIAL)


class Probes:
    """Asks mirrors for a little of a file. The bytes are thrown away, and counted as wasted."""

    def __init__(self, fleet: MirrorPool) -> None:
        self._fleet = fleet
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked: dict[str, float] = {}

    async def all(self, manifest: Manifest, file: ManifestFile) -> None:
        """Probe every mirror now, side by side; failures become their states."""
        await asyncio.gather(*(self._probe(m, manifest, file) for m in self._fleet.mirrors))

    def start_due(self, manifest: Manifest, file: ManifestFile) -> None:
        """Probe in the background, once a minute at most and not in the first, mirrors that are fit to be asked and of
        whose rate nothing is known."""
        now = self._fleet.clock.now()
        for mirror in self._fleet.mirrors if len(self._fleet.mirrors) > 1 else ():
            due = now - self._asked.setdefault(mirror.name, now) >= _EVERY
            fit = mirror.health.state(now) in _WORTH_ASKING and not mirror.settings.fallback
            if due and fit and mirror.quality.rate.known(now) is None and not mirror.slots.locked():
                self._asked[mirror.name] = now
                task = asyncio.ensure_future(self._probe(mirror, manifest, file))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Let no probe outlive the origin."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _probe(self, mirror: Mirror, manifest: Manifest, file: ManifestFile) -> None:
        job, clock = MirrorJob(self._fleet, manifest, file), self._fleet.clock
        wanted = ExpectedRange(manifest, file, 0, min(_LENGTH, file.size))

        async def deliver(_offset: int, data: bytes) -> bool:
            mirror.wasted += len(data)
            return True

        async with mirror.slots:
            began = time.monotonic()
            if await job.ask(mirror, wanted, deliver):
                rate = wanted.end / max(1e-6, time.monotonic() - began)
                mirror.quality = mirror.quality.probed(rate, clock.now())
                compare(self._fleet.mirrors, clock.now())
