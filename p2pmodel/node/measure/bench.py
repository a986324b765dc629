"""Measure mirrors: what they are probed with, and each alone: the same file is downloaded and verified repeatedly."""

import asyncio
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.layout import piece_length_for
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import AccessDenied, EntryNotFound, IntegrityError, InvalidInput, NotFound, Unavailable
from p2pmodel.origin.mirrors.measurement import MirrorMeasurement
from p2pmodel.origin.mirrors.throughput import BenchRun, window_rates
from p2pmodel.origin.origin import Origin
from p2pmodel.store.files.partial_file import PartialFile
from p2pmodel.store.files.space import check_space, check_writable

PATIENCE = 10.0
"""Seconds without any progress after which a run has failed."""

HOPELESS = 3
"""Failed runs in a row without a byte after which a mirror is not measured any more."""

_MIRRORS_FAULT = (AccessDenied, IntegrityError, NotFound, Unavailable)


@dataclass(frozen=True, slots=True)
class MirrorBenchResult:
    """The measured file, and the runs of each mirror by its name, in priority order."""

    manifest: Manifest
    file: ManifestFile
    endpoints: dict[str, str]
    runs: dict[str, list[BenchRun]]


class BenchObserver(Protocol):
    """Receives the events of a benchmark."""

    def run_ended(self, mirror: str, run: BenchRun) -> None:
        """A run with the mirror of that name has ended."""

    def note(self, line: str) -> None:
        """A line for the user."""


class MirrorBench:
    """Downloads one file from each mirror alone, in turns, so that the network conditions are the same for all."""

    def __init__(self, settings: Settings, observer: BenchObserver) -> None:
        self._settings = settings
        self._observer = observer
        patience = min(PATIENCE, settings.origin.patience)
        self._alone = settings.origin.model_copy(update={"state_dir": None, "patience": patience})

    async def run(self, ref: Reference, *, runs: int, path: str | None) -> MirrorBenchResult:
        """Measure `runs` downloads of the file at `path`, or of the largest.

        Raises NotFound, AccessDenied, Unavailable as `Origin.manifest` does, InvalidInput for an empty file,
        LocalResource.
        """
        async with Origin(self._settings.mirrors, self._settings.origin, on_note=self._observer.note) as origin:
            manifest = await origin.manifest(ref)
            names = [status.name for status in origin.statuses()]
        file = chosen(manifest, path)
        cache = self._settings.cache_dir
        await asyncio.to_thread(check_writable, cache)
        await asyncio.to_thread(check_space, cache, file.size)
        mirrors = dict(zip(names, self._settings.mirrors, strict=True))
        found: dict[str, list[BenchRun]] = {name: [] for name in names}
        for _ in range(runs):
            for name, mirror in mirrors.items():
                if not _hopeless(found[name]):
                    found[name].append(await self._once(name, mirror, manifest, file))
        return MirrorBenchResult(manifest, file, {name: mirror.endpoint for name, mirror in mirrors.items()}, found)

    async def _once(self, name: str, mirror: MirrorSettings, manifest: Manifest, file: ManifestFile) -> BenchRun:
        # On the cache's own disk, where downloads go, under a name that clients of the cache ignore.
        folder = await asyncio.to_thread(
            tempfile.TemporaryDirectory, prefix=".p2pmodel-bench-", dir=self._settings.cache_dir
        )
        try:
            run = await self._measure(mirror, manifest, file, Path(folder.name) / "file")
        finally:
            await asyncio.shield(asyncio.to_thread(folder.cleanup))
        self._observer.run_ended(name, run)
        return run

    async def _measure(self, mirror: MirrorSettings, manifest: Manifest, file: ManifestFile, path: Path) -> BenchRun:
        arrivals: list[tuple[float, int]] = []
        partial = await asyncio.to_thread(PartialFile.open, path, file, piece_length_for(manifest.total_size))
        # Without state from earlier runs, its status at the end is of this run alone.
        async with Origin([mirror], self._alone) as origin, partial:
            began = time.monotonic()
            seconds, error = None, ""
            try:
                await origin.pull(
                    manifest, file, partial, on_bytes=lambda size: arrivals.append((time.monotonic() - began, size))
                )
                seconds = time.monotonic() - began
            except _MIRRORS_FAULT as failure:
                error = str(failure)
            standing = origin.statuses()[0]
        return BenchRun(
            size=file.size,
            seconds=seconds,
            connect=standing.connect,
            first_byte=standing.first_byte,
            rates=window_rates(arrivals, seconds if seconds is not None else 0.0),
            retried=seconds is not None and bool(standing.reason),
            error="" if seconds is not None else standing.reason or error,
            received=sum(size for _, size in arrivals),
        )


def chosen(manifest: Manifest, path: str | None) -> ManifestFile:
    """The file at `path`, or the largest. Raises EntryNotFound, InvalidInput for one without bytes."""
    files = [file for file in manifest.files if path in (None, file.path)]
    if not files:
        what = f"no file {path}" if path else "no file"
        raise EntryNotFound(f"{manifest.repo}@{manifest.commit[:12]} has {what}")
    file = max(files, key=lambda f: f.size)
    if not file.size:
        raise InvalidInput(f"{file.path} is empty: nothing to measure", hint="name another with --file")
    return file


def _hopeless(runs: list[BenchRun]) -> bool:
    last = runs[-HOPELESS:]
    return len(last) == HOPELESS and all(run.seconds is None and not run.received for run in last)


def measurement(settings: Settings) -> MirrorMeasurement:
    """Measurement of the mirrors in `settings`."""
    return MirrorMeasurement(settings.mirrors, settings.origin)


def online(settings: Settings) -> None:
    """Raise InvalidInput if the mirrors may not be asked, or none is configured."""
    if settings.offline:
        raise InvalidInput("HF_HUB_OFFLINE forbids requests to the mirrors", hint="unset it")
    if not settings.mirrors:
        raise InvalidInput("no mirror is configured", hint="see docs/reference/settings.md")


async def sample_of(settings: Settings, ref: Reference, note: Callable[[str], None]) -> tuple[Manifest, ManifestFile]:
    """The largest file of `ref`, for a probe to read from. Raises as `Origin.manifest` does."""
    async with Origin(settings.mirrors, settings.origin, on_note=note) as origin:
        manifest = await origin.manifest(ref)
    return manifest, chosen(manifest, None)
