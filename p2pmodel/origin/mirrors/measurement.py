"""Measurement of mirrors on request, with one reading each, which also updates the recorded state."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import LocalResource
from p2pmodel.origin.clock import Clock
from p2pmodel.origin.failures import Failed, RangesIgnored, Refused
from p2pmodel.origin.mirrors.mirror import Mirror, MirrorStatus, mirrors_of
from p2pmodel.origin.mirrors.pool import in_order, serving
from p2pmodel.origin.mirrors.state_file import recall, remember
from p2pmodel.origin.requests import RangeRequests
from p2pmodel.origin.responses import ExpectedRange
from p2pmodel.origin.sessions import MirrorSessions

_PART = 1 << 20
_PARTS = 4
_READ_SECONDS = 5.0
"""Limit for the sample of a slow mirror."""


@dataclass(frozen=True, slots=True)
class ProbeReading:
    """One probe of one mirror: seconds to connect, seconds from a request to its headers, bytes a second over several
    connections; None where it was not measured. `error`: why the probe failed, or empty."""

    name: str
    endpoint: str
    connect: float | None
    first_byte: float | None
    rate: float | None
    error: str


class MirrorMeasurement:
    """Measures the mirrors of the settings, and records the readings in the state file."""

    def __init__(
        self, mirrors: Sequence[MirrorSettings], settings: OriginSettings, *, clock: Clock | None = None
    ) -> None:
        self._settings = settings
        self._clock = clock or Clock()
        self._listed = mirrors

    async def recorded(self, repo: RepoId | None = None) -> list[MirrorStatus]:
        """The recorded state of each mirror, in the order in which they would be asked; of those for `repo` alone, if
        it is given."""
        now, mirrors = self._clock.now(), await self._recalled()
        return [mirror.status(now) for mirror in in_order(serving(mirrors, repo) if repo else mirrors, now)]

    async def measure(self, sample: tuple[Manifest, ManifestFile] | None = None) -> list[ProbeReading]:
        """Probe each mirror now, in priority order. Latency is measured concurrently; then some MiB of the sample file
        are read, one mirror after the other, so that none shares its bandwidth. Raises LocalResource if the readings
        cannot be recorded."""
        fresh = mirrors_of(self._listed)
        errors: dict[str, str] = {}
        rates: dict[str, float] = {}
        async with MirrorSessions(self._settings) as sessions:
            requests = RangeRequests(sessions, self._clock, egress=self._settings.egress)
            await asyncio.gather(*(_measure_latency(requests, mirror, errors) for mirror in fresh))
            for mirror in fresh if sample else ():
                if sample and mirror.name not in errors and mirror.settings.serves(sample[0].repo):
                    await _read(requests, mirror, sample, errors, rates)
        await self._remember(fresh, errors, rates)
        now = self._clock.now()
        return [_reading(mirror, now, rates.get(mirror.name), errors.get(mirror.name, "")) for mirror in fresh]

    async def _recalled(self) -> tuple[Mirror, ...]:
        mirrors = mirrors_of(self._listed)
        if self._settings.state_dir:
            await asyncio.to_thread(recall, self._settings.state_dir, mirrors, self._clock)
        return mirrors

    async def _remember(self, fresh: Sequence[Mirror], errors: dict[str, str], rates: dict[str, float]) -> None:
        folder, now = self._settings.state_dir, self._clock.now()
        if folder is None:
            return
        known = await self._recalled()
        for old, new in zip(known, fresh, strict=True):
            connect, first_byte = new.quality.connect.known(now), new.quality.first_byte.known(now)
            if first_byte is not None:
                old.responded(connect, first_byte, now)
            if old.name in rates:
                old.probed(rates[old.name], now)
            if old.name in errors:
                old.refused(errors[old.name])
        try:
            await asyncio.to_thread(remember, folder, known, self._clock)
        except OSError as error:
            raise LocalResource(
                f"cannot record the state of the mirrors in {folder}: {error.strerror}", hint="set P2PMODEL_STATE_DIR"
            ) from None


async def _measure_latency(requests: RangeRequests, mirror: Mirror, errors: dict[str, str]) -> None:
    try:
        await requests.measure_latency(mirror)
    except Failed as failure:
        errors[mirror.name] = failure.reason


async def _read(
    requests: RangeRequests,
    mirror: Mirror,
    sample: tuple[Manifest, ManifestFile],
    errors: dict[str, str],
    rates: dict[str, float],
) -> None:
    manifest, file = sample
    starts = range(0, min(file.size, _PART * min(_PARTS, mirror.settings.max_connections)), _PART)
    parts = [ExpectedRange(manifest, file, start, min(start + _PART, file.size)) for start in starts]
    tasks = [asyncio.ensure_future(_discard(requests, mirror, part)) for part in parts]
    began = time.monotonic()
    try:
        async with asyncio.timeout(_READ_SECONDS):
            await asyncio.gather(*tasks)
    except TimeoutError:
        if not mirror.counters.received:
            errors[mirror.name] = f"no byte within {_READ_SECONDS:.0f} s"
    except (Failed, Refused) as failure:
        errors[mirror.name] = failure.reason
    except RangesIgnored:
        errors[mirror.name] = "it answers a range with the whole file"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if mirror.counters.received and mirror.name not in errors:
        elapsed = time.monotonic() - began
        waited = mirror.quality.connect.value + mirror.quality.first_byte.value
        # On a long path most of the time for a few MiB is the wait for the headers, which is another figure.
        rates[mirror.name] = mirror.counters.received / max(elapsed - waited, elapsed / 4, 1e-6)


async def _discard(requests: RangeRequests, mirror: Mirror, wanted: ExpectedRange) -> None:
    async with aclosing(requests.stream(mirror, wanted)) as chunks:
        async for _ in chunks:
            pass


def _reading(mirror: Mirror, now: float, rate: float | None, error: str) -> ProbeReading:
    quality = mirror.quality
    endpoint = mirror.settings.endpoint
    return ProbeReading(mirror.name, endpoint, quality.connect.known(now), quality.first_byte.known(now), rate, error)
