"""Small probes of mirrors that no pull uses, so that one that became quicker is noticed."""

import asyncio
import time

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.origin.download.job import MirrorJob
from p2pmodel.origin.mirrors.health import State
from p2pmodel.origin.mirrors.mirror import Mirror, compare
from p2pmodel.origin.mirrors.pool import MirrorPool
from p2pmodel.origin.responses import ExpectedRange

_LENGTH = 256 << 10
_EVERY = 60.0
_USABLE = (State.HEALTHY, State.SLOW, State.TRIAL)


class Probes:
    """Requests a few bytes of a file from mirrors. The bytes are dropped and counted as wasted."""

    def __init__(self, pool: MirrorPool) -> None:
        self._pool = pool
        self._tasks: set[asyncio.Task[None]] = set()
        self._probed: dict[str, float] = {}

    async def all(self, manifest: Manifest, file: ManifestFile) -> None:
        """Probe every mirror now, concurrently; a failure changes the mirror's state."""
        await asyncio.gather(*(self._probe(m, manifest, file) for m in self._pool.of(manifest.repo)))

    def start_due(self, manifest: Manifest, file: ManifestFile) -> None:
        """Start background probes of usable mirrors without a rate estimate, each at most once a minute and not in the
        first minute."""
        now, mirrors = self._pool.clock.now(), self._pool.of(manifest.repo)
        for mirror in mirrors if len(mirrors) > 1 else ():
            due = now - self._probed.setdefault(mirror.name, now) >= _EVERY
            usable = mirror.health.state(now) in _USABLE and not mirror.settings.fallback
            if due and usable and mirror.quality.rate.known(now) is None and not mirror.slots.locked():
                self._probed[mirror.name] = now
                task = asyncio.ensure_future(self._probe(mirror, manifest, file))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cancel the background probes and wait for their end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _probe(self, mirror: Mirror, manifest: Manifest, file: ManifestFile) -> None:
        job, clock = MirrorJob(self._pool, manifest, file), self._pool.clock
        wanted = ExpectedRange(manifest, file, 0, min(_LENGTH, file.size))

        async def drop(_offset: int, data: bytes) -> bool:
            mirror.wasted(len(data))
            return True

        async with mirror.slots:
            began = time.monotonic()
            if await job.request(mirror, wanted, drop):
                mirror.probed(wanted.end / max(1e-6, time.monotonic() - began), clock.now())
                compare(self._pool.mirrors, clock.now())
