"""Read the blobs of a cache in the background, slowly, and compare them with their hashes.

A disk may change bytes without any sign: size, time and inode stay. What fails the check is recorded as damaged, so
that no server sends it. A pass over all blobs continues after a restart, from the blob where it stopped. One process at
a time scrubs a cache.
"""

import asyncio
import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from p2pmodel.config.sections.daemon import StoreSettings
from p2pmodel.core import notes
from p2pmodel.core.content.layout import MIB
from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.core.files.private_files import make_folders, write_private
from p2pmodel.core.pace import Pace
from p2pmodel.core.progress.views import ScrubView
from p2pmodel.core.tasks import in_thread
from p2pmodel.errors import IntegrityError, P2PModelError
from p2pmodel.os_errors import translate, translated
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.files.disk import read_json
from p2pmodel.store.files.hashing import chunks
from p2pmodel.store.process_locks import LockSearch
from p2pmodel.store.snapshots.snapshot_list import snapshots
from p2pmodel.store.state.verified_blobs import BlobState, fingerprint_of

DAY = 86400.0
LOOK_EVERY = 60.0
"""Seconds between two looks whether a pass is due, or a blob has changed."""
STEP = MIB
"""Bytes read at a time, in a thread."""
SAVE_EVERY = 5.0
"""Seconds between two records of the progress of a pass."""
_START = ("", "")


@dataclass(frozen=True, slots=True)
class ScrubRecord:
    """How far the passes have come. Times in seconds since 1970. `ended`: the end of the last of `passes` passes, or
    when the first process began. `position`: the last blob that was read, as its repository and etag, `done` the bytes
    read in the pass under way; `began` is None while none is."""

    ended: float
    passes: int = 0
    began: float | None = None
    position: tuple[str, str] = _START
    done: int = 0


class ScrubRecords:
    """The record of one cache, in a folder of its own below `folder`. Methods block."""

    def __init__(self, folder: Path, cache: HubCache) -> None:
        self.folder = folder / hashlib.sha256(bytes(cache.root)).hexdigest()[:16]
        self._path = self.folder / "scrub.json"

    @translated()
    def make(self) -> None:
        """Make the folder."""
        make_folders(self.folder)

    def load(self, now: float) -> ScrubRecord:
        """The record; without one the blobs count as read at `now`: they were verified when they came."""
        plain: Any = read_json(self._path)
        try:
            began = None if plain["began"] is None else float(plain["began"])
            repo, etag = map(str, plain["position"])
            return ScrubRecord(float(plain["ended"]), int(plain["passes"]), began, (repo, etag), int(plain["done"]))
        except (TypeError, KeyError, ValueError):
            return ScrubRecord(ended=now)

    @translated()
    def save(self, record: ScrubRecord) -> None:
        """Replace the record."""
        make_folders(self.folder)
        write_private(self._path, json.dumps(asdict(record)).encode())


@dataclass(frozen=True, slots=True)
class ScrubItem:
    """A blob to read, and its state before."""

    repo: RepoCache
    file: ManifestFile
    state: BlobState
    plain: bool = False
    """Whether it is a file of a snapshot, without its hash in its name: served only once it was read."""

    @property
    def key(self) -> tuple[str, str]:
        """Its place in a pass."""
        return str(self.repo.repo), self.file.etag


class Scrubber:
    """Scrubs `cache` while `run` runs; `view` returns the figures. `clock` returns seconds since 1970: passes are days
    apart, and a clock that was set back makes the next one due at once."""

    def __init__(
        self,
        cache: HubCache,
        settings: StoreSettings,
        folder: Path,
        *,
        note: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cache = cache
        self._pace = Pace()
        self._enabled = asyncio.Event()
        self.change(settings)
        self._records = ScrubRecords(folder, cache)
        self._note = note
        self._clock = clock
        self._record = ScrubRecord(ended=clock())
        self._saved_at = 0.0
        self._total = 0
        self._read = 0
        self._found = 0

    def change(self, settings: StoreSettings) -> None:
        """Scrub as `settings` say from now on. A pass under way pauses while they turn it off."""
        self._interval = settings.scrub_interval * DAY
        if settings.scrub_rate and settings.scrub_interval:
            self._pace.change(settings.scrub_rate)
            self._enabled.set()
        else:
            self._enabled.clear()

    def view(self) -> ScrubView:
        """The figures now."""
        record = self._record
        return ScrubView(
            enabled=self._enabled.is_set(),
            running=record.began is not None,
            done=record.done,
            total=self._total if record.began is not None else 0,
            ended=record.ended if record.passes else None,
            read=self._read,
            found=self._found,
        )

    async def run(self) -> None:
        """Scrub until cancelled, while the settings turn it on. An error interrupts a pass; it is continued later."""
        await self._enabled.wait()
        async with AsyncExitStack() as stack:
            await self._alone(stack)
            self._record = await asyncio.to_thread(self._records.load, self._clock())
            await self._save()
            while True:
                try:
                    await self.work()
                except P2PModelError as error:
                    self._note(notes.error("scrub_failed", f"the background check of the cache stopped: {error}"))
                await asyncio.sleep(min(LOOK_EVERY, self._interval or LOOK_EVERY))
                await self._enabled.wait()

    async def work(self) -> None:
        """Read the blobs that have changed since they were verified, and plain files without a record; and all, if that
        is due."""
        items = await asyncio.to_thread(self._items)
        for item in items:
            if item.state is BlobState.CHANGED or (item.state is BlobState.UNKNOWN and item.plain):
                await self._check(item)
        record, now = self._record, self._clock()
        if record.began is None and 0 <= now - record.ended < self._interval:
            return
        if record.began is None:
            self._record = replace(record, began=now)
        await self._pass(items)

    async def check(self, repo: RepoCache, files: Iterable[ManifestFile]) -> None:
        """Read those of `files` that were not checked before, at the same rate. Nothing where that is turned off."""
        if not self._enabled.is_set():
            return
        wanted = list(files)
        states = await asyncio.to_thread(repo.states, wanted)
        for file in {file.etag: file for file in wanted}.values():
            if states[file.etag] is BlobState.UNKNOWN:
                await self._check(ScrubItem(repo, file, BlobState.UNKNOWN))

    async def _alone(self, stack: AsyncExitStack) -> None:
        await asyncio.to_thread(self._records.make)
        search = LockSearch(self._records.folder / "lock")
        said = False
        while (lock := search.take()) is None:
            if not said:
                self._note(notes.info("scrub_waits", f"the background check waits for {search.waits_for()}"))
                said = True
            await asyncio.sleep(LOOK_EVERY)
        stack.callback(lock.release)

    async def _pass(self, items: list[ScrubItem]) -> None:
        self._total = sum(item.file.size for item in items)
        try:
            for item in items:
                if item.key <= self._record.position:
                    continue
                await self._enabled.wait()
                done = self._record.done
                if item.state in (BlobState.VERIFIED, BlobState.UNKNOWN):
                    await self._check(item)
                self._record = replace(self._record, position=item.key, done=done + item.file.size)
                await self._save(rarely=True)
            self._record = ScrubRecord(ended=self._clock(), passes=self._record.passes + 1)
        finally:
            await self._save()

    async def _check(self, item: ScrubItem) -> None:
        """Read one blob and record the result. A blob that vanishes meanwhile is left to others."""
        repo, file = item.repo, item.file
        place = await asyncio.to_thread(repo.places.find, file)
        if place is None:
            return
        try:
            blob = await in_thread(partial(repo.places.open_place, place), BinaryIO.close)
        except OSError:
            return
        with blob:
            await self._check_open(repo, file, place.key, blob.fileno())

    async def _check_open(self, repo: RepoCache, file: ManifestFile, key: str, blob: int) -> None:
        found = fingerprint_of(os.fstat(blob))
        if found[0] != file.size:
            return
        try:
            right = await self._digest(blob, file) == file.etag
        except OSError as error:
            if error.errno != errno.EIO:
                raise translate(error) from error
            right = False
        except IntegrityError:
            return  # it became shorter
        await asyncio.to_thread(repo.record_place, key, found, right=right)
        if not right:
            self._found += 1
            self._note(
                notes.error(
                    "blob_damaged",
                    f"{file.path} of {repo.repo} is damaged on this disk: it is not served",
                    repo=str(repo.repo),
                    file=file.path,
                )
            )

    async def _digest(self, blob: int, file: ManifestFile) -> str:
        hasher, data = file.hasher(), chunks(blob, 0, file.size, spare_cache=True)
        block = min(STEP, self._pace.block)
        while size := await asyncio.to_thread(_step, data, hasher.update, block):
            self._read += size
            await self._pace.spend(size)
        return hasher.hexdigest()

    def _items(self) -> list[ScrubItem]:
        """Every blob of a snapshot, once, in the order of a pass."""
        found: dict[tuple[str, str], ScrubItem] = {}
        for snapshot in snapshots(self._cache):
            repo = self._cache.repo(snapshot.repo)
            states = repo.states(snapshot.manifest.files)
            for file in snapshot.manifest.files:
                if states[file.etag] is not BlobState.MISSING:
                    place = repo.places.find(file)
                    plain = place is not None and place.plain is not None
                    item = ScrubItem(repo, file, states[file.etag], plain)
                    found[item.key] = item
        return [found[key] for key in sorted(found)]

    async def _save(self, *, rarely: bool = False) -> None:
        if rarely and time.monotonic() - self._saved_at < SAVE_EVERY:
            return
        self._saved_at = time.monotonic()
        await asyncio.to_thread(self._records.save, self._record)


def _step(data: Iterator[memoryview], take: Callable[[memoryview], object], size: int) -> int:
    """Take about `size` of the next bytes; returns how many, 0 at the end."""
    taken = 0
    for chunk in data:
        take(chunk)
        taken += len(chunk)
        if taken >= size:
            break
    return taken
