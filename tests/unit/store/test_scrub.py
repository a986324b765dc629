"""The background check: it finds silent damage, keeps to its rate and its days, and continues after a restart."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pmodel.config.sections.daemon import StoreSettings
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import RepoId
from p2pmodel.store import scrub
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.content_locks import take_lock
from p2pmodel.store.scrub import DAY, Scrubber, ScrubRecords
from p2pmodel.store.state.verified_blobs import BlobState
from tests.support.eventually import eventually
from tests.support.stored import publish

WEIGHTS = "model-00001.safetensors"
FAST = StoreSettings(scrub_rate=1 << 40)


class Clock:
    now = 1000.0 * DAY

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def cache(tmp_path: Path) -> HubCache:
    return HubCache(tmp_path / "hub")


@pytest.fixture
def manifest(cache: HubCache) -> Manifest:
    return publish(cache)


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Machine:
    def __init__(self, cache: HubCache, folder: Path, clock: Clock) -> None:
        self.cache, self.folder, self.clock = cache, folder, clock
        self.notes: list[str] = []

    def scrubber(self, settings: StoreSettings = FAST) -> Scrubber:
        return Scrubber(HubCache(self.cache.root), settings, self.folder, note=self.notes.append, clock=self.clock)

    def record(self) -> scrub.ScrubRecord:
        return ScrubRecords(self.folder, self.cache).load(self.clock())


@pytest.fixture
def machine(cache: HubCache, tmp_path: Path, clock: Clock) -> Machine:
    return Machine(cache, tmp_path / "state", clock)


def state(cache: HubCache, file: ManifestFile) -> BlobState:
    repo = HubCache(cache.root).repo(RepoId("org/model"))
    return repo.states([file])[file.etag]


def weights(manifest: Manifest) -> ManifestFile:
    return next(file for file in manifest.files if file.path == WEIGHTS)


def flip(repo: RepoCache, file: ManifestFile) -> None:
    """One bit; size, times and inode stay as recorded: a failing disk."""
    blob = repo.blob_path(file)
    status, data = blob.stat(), bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    os.utime(blob, ns=(status.st_atime_ns, status.st_mtime_ns))
    repo.mark_verified([file])  # no program can set the ctime back


async def test_silent_damage_is_found_and_recorded(machine: Machine, manifest: Manifest, clock: Clock) -> None:
    flip(machine.cache.repo(manifest.repo), weights(manifest))
    assert state(machine.cache, weights(manifest)) is BlobState.VERIFIED
    scrubber = machine.scrubber()
    await scrubber.work()
    assert scrubber.view().read == 0, "what has just come was verified"
    clock.now += 7 * DAY
    await scrubber.work()
    assert state(machine.cache, weights(manifest)) is BlobState.DAMAGED
    view = scrubber.view()
    assert (view.found, view.running, view.ended) == (1, False, clock.now)
    assert view.read == sum(file.size for file in manifest.files)
    assert [line for line in machine.notes if WEIGHTS in line and "damaged" in line]
    clock.now += 7 * DAY
    await scrubber.work()
    assert scrubber.view().found == 1, "it is known already"


async def test_what_has_changed_is_read_at_once(machine: Machine, manifest: Manifest) -> None:
    os.utime(machine.cache.repo(manifest.repo).blob_path(weights(manifest)))
    assert state(machine.cache, weights(manifest)) is BlobState.CHANGED
    scrubber = machine.scrubber()
    await scrubber.work()
    assert state(machine.cache, weights(manifest)) is BlobState.VERIFIED
    assert scrubber.view().read == weights(manifest).size


async def test_a_pass_continues_after_a_restart(
    machine: Machine, manifest: Manifest, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = sum(file.size for file in manifest.files)
    last = max(manifest.files, key=lambda file: file.etag)
    whole, first = Scrubber._check, machine.scrubber()

    async def check(self: Scrubber, item: scrub.ScrubItem) -> None:
        if item.file.etag == last.etag:
            raise asyncio.CancelledError  # the process ends here
        await whole(self, item)

    monkeypatch.setattr(Scrubber, "_check", check)
    clock.now += 7 * DAY
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.ensure_future(_run(first)), 60)
    monkeypatch.undo()
    assert machine.record().began == clock.now
    assert machine.record().done == total - last.size
    second = machine.scrubber()
    running = asyncio.ensure_future(second.run())
    await eventually(lambda: second.view().ended is not None, what="the end of the pass")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert second.view().read == last.size
    assert machine.record().began is None


async def _run(scrubber: Scrubber) -> None:
    """As `run`, of which the record is a week old."""
    scrubber._records.make()
    scrubber._record = scrub.ScrubRecord(ended=scrubber._clock() - 8 * DAY)
    await scrubber.work()


async def test_a_clock_that_was_set_back_does_not_postpone_it(
    machine: Machine, manifest: Manifest, clock: Clock
) -> None:
    scrubber = machine.scrubber()
    clock.now -= 100 * DAY
    await scrubber.work()
    assert scrubber.view().read == sum(file.size for file in manifest.files)


async def test_one_process_at_a_time_scrubs_a_cache(machine: Machine) -> None:
    lock = ScrubRecords(machine.folder, machine.cache).folder / "lock"
    running = asyncio.ensure_future(machine.scrubber().run())
    await eventually((lock.parent / "scrub.json").exists, what="a record")
    assert take_lock(lock) is None
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    free = take_lock(lock)
    assert free is not None
    free.release()


@pytest.mark.parametrize("settings", [StoreSettings(scrub_rate=0), StoreSettings(scrub_interval=0)])
async def test_it_can_be_turned_off(machine: Machine, settings: StoreSettings) -> None:
    scrubber = machine.scrubber(settings)
    running = asyncio.create_task(scrubber.run())
    await asyncio.sleep(0)
    assert not scrubber.view().enabled
    assert not machine.folder.exists()
    scrubber.change(FAST)
    assert scrubber.view().enabled
    await eventually(machine.folder.exists, what="the folder of its record")
    running.cancel()


async def test_its_rate_is_bounded(machine: Machine, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    spent: list[int] = []

    async def spend(_pace: object, count: int) -> None:
        spent.append(count)

    monkeypatch.setattr("p2pmodel.core.pace.Pace.spend", spend)
    scrubber = machine.scrubber(StoreSettings(scrub_rate=1000))
    os.utime(machine.cache.repo(manifest.repo).blob_path(weights(manifest)))
    await scrubber.work()
    assert sum(spent) == weights(manifest).size


async def test_a_disk_that_cannot_read_a_blob_has_damaged_it(
    machine: Machine, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chunks(*_args: object, **_named: object) -> Iterator[memoryview]:
        raise OSError(5, "Input/output error")
        yield memoryview(b"")

    monkeypatch.setattr(scrub, "chunks", chunks)
    os.utime(machine.cache.repo(manifest.repo).blob_path(weights(manifest)))
    await machine.scrubber().work()
    assert state(machine.cache, weights(manifest)) is BlobState.DAMAGED


def test_a_damaged_record_counts_as_none(machine: Machine, clock: Clock) -> None:
    records = ScrubRecords(machine.folder, machine.cache)
    records.make()
    records.save(scrub.ScrubRecord(5.0, 2, 6.0, ("a/b", "c"), 7))
    assert records.load(clock()) == scrub.ScrubRecord(5.0, 2, 6.0, ("a/b", "c"), 7)
    (records.folder / "scrub.json").write_text('{"ended": "x"')
    assert records.load(9.0) == scrub.ScrubRecord(9.0)
