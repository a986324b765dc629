"""When received pieces are saved, and which of them are restored."""

import asyncio
from pathlib import Path

import pytest

from p2pmodel.errors import Unavailable
from p2pmodel.node.fetch.pieces import have_record
from p2pmodel.node.fetch.pieces.have_record import LATEST, LEAST_UNSAVED, SHARE, UNSAVED, HaveRecord
from p2pmodel.node.fetch.pieces.stats import PieceStats
from p2pmodel.node.snapshot.piece_record import PieceRecord
from tests.support.eventually import PATIENCE
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_swarm import Swarm


class Disk:
    """A torrent on a disk that takes `seconds` to write, and its record."""

    def __init__(self, folder: Path) -> None:
        swarm = Swarm(folder, snapshot_of({"model.bin": bytes(2 * UNSAVED)}))
        self.now, self.seconds, self.fails = 100.0, 0.0, False
        self.arrived: set[int] = set()
        self.written = asyncio.Event()
        self.piece = swarm.metainfo.layout.piece_length
        self.stats = PieceStats(swarm.metainfo, frozenset({0}))
        self.stats.begin(frozenset(), mirrored=frozenset(), exchanged=frozenset())
        self.contents = contents = swarm.cache().repo(swarm.metainfo.manifest.repo).staged
        self.path = contents.path_of(swarm.metainfo.manifest.files[0])
        self.path.write_bytes(bytes(2 * UNSAVED))
        self.record = HaveRecord(contents, swarm.metainfo, self.stats, lambda: self.now)
        self.record.begin(frozenset())

    async def durable(self) -> frozenset[int]:
        self.now += self.seconds
        if self.fails:
            raise Unavailable("the disk takes its time")
        self.written.set()
        return frozenset(self.arrived)

    def arrive(self, count: int = 1) -> None:
        for piece in sorted(self.stats.missing)[:count]:
            self.arrived.add(piece)
            self.stats.arrived(piece, "peers")


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


async def test_saved_pieces_are_restored(disk: Disk) -> None:
    disk.arrive(3)
    assert await disk.record.load() == frozenset()
    await disk.record.save(disk)
    assert disk.record.durable == disk.arrived == await disk.record.load()


async def test_an_unchanged_record_is_not_saved_again(disk: Disk) -> None:
    assert not disk.record.due
    disk.arrive()
    assert disk.record.due
    await disk.record.save(disk)
    disk.now += LATEST
    assert not disk.record.due


async def test_saves_take_their_share_of_the_time(disk: Disk) -> None:
    disk.seconds = SHARE * LATEST / 2
    disk.arrive()
    await disk.record.save(disk)
    ended = disk.now
    disk.arrive()
    disk.now = ended + LATEST / 2 - 0.01
    assert not disk.record.due
    disk.now = ended + LATEST / 2 + 0.01
    assert disk.record.due


async def test_a_slow_save_puts_the_next_off_for_a_while_only(disk: Disk) -> None:
    disk.seconds = 60
    disk.arrive()
    await disk.record.save(disk)
    disk.arrive()
    disk.now += LATEST
    assert disk.record.due


async def test_much_that_is_unsaved_does_not_wait(disk: Disk) -> None:
    disk.seconds = 60
    disk.arrive()
    await disk.record.save(disk)
    saved = disk.stats.done
    while disk.stats.done - saved < LEAST_UNSAVED:
        assert not disk.record.due
        disk.arrive()
    assert disk.record.due


async def test_less_is_unsaved_at_both_ends(disk: Disk) -> None:
    """A load begins with the first bytes, and can take the last ones once they are recorded."""
    disk.seconds, unsaved = 60, []
    disk.arrive()
    await disk.record.save(disk)
    while disk.stats.missing:
        saved = disk.stats.done
        while disk.stats.missing and not disk.record.due:
            disk.arrive()
        unsaved.append(disk.stats.done - saved)
        await disk.record.save(disk)
    largest = unsaved.index(max(unsaved))
    assert unsaved[:largest] == sorted(unsaved[:largest])
    assert unsaved[largest:] == sorted(unsaved[largest:], reverse=True)
    assert max(unsaved[0], unsaved[-1]) <= LEAST_UNSAVED
    assert len(unsaved) <= 10


@pytest.mark.parametrize("missing", [1, -LEAST_UNSAVED // (128 << 10)], ids=["last", "first"])
async def test_bytes_at_both_ends_do_not_wait_for_the_next_look(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, missing: int
) -> None:
    monkeypatch.setattr(have_record, "SAVE_EVERY", 3600)
    saving = asyncio.create_task(disk.record.run(disk))
    try:
        async with asyncio.timeout(PATIENCE):
            disk.arrive(len(disk.stats.missing) - missing if missing > 0 else -missing)
            disk.record.arrived()
            await disk.written.wait()
    finally:
        saving.cancel()


async def test_after_a_failure_it_is_tried_again_though_not_at_once(disk: Disk) -> None:
    disk.seconds, disk.fails = 30, True
    disk.arrive()
    with pytest.raises(Unavailable):
        await disk.record.save(disk)
    assert not disk.record.due
    disk.now += LATEST
    assert disk.record.due
    assert disk.record.durable == frozenset()


async def test_another_torrent_with_the_same_content_is_given_its_pieces(disk: Disk, tmp_path: Path) -> None:
    disk.arrive(5)
    await disk.record.save(disk)
    contents = {"model.bin": bytes(2 * UNSAVED), "config.json": b"{}"}
    moved = Swarm(tmp_path / "moved", snapshot_of(contents)).metainfo
    first = moved.layout.spans[1].first_piece
    assert first == 1
    assert PieceRecord(disk.contents, moved).load() == {first + piece for piece in disk.arrived}
    other = Swarm(tmp_path / "other", snapshot_of({"model.bin": b"other".ljust(2 * UNSAVED)})).metainfo
    assert PieceRecord(disk.contents, other).load() == frozenset()


async def test_the_last_pieces_are_recorded_before_their_file_is_hashed(disk: Disk) -> None:
    """A load goes on with them meanwhile."""
    disk.arrive(len(disk.stats.missing))
    await disk.record.save(disk)
    assert await disk.record.load() == frozenset(), "it is about to be published"
    await disk.record.save_whole(disk)
    assert await disk.record.load() == disk.arrived


async def test_saves_take_turns(disk: Disk) -> None:
    """A record that is written after a later one would take its pieces back."""
    durable, running = disk.durable, 0

    async def slow() -> frozenset[int]:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.01)
        running -= 1
        return await durable()

    disk.durable = slow  # type: ignore[method-assign]
    disk.arrive(3)
    await asyncio.gather(disk.record.save(disk), disk.record.save_whole(disk), disk.record.save(disk))
    assert await disk.record.load() == disk.arrived


async def test_no_record_is_made_of_a_file_that_is_published(disk: Disk) -> None:
    disk.path.unlink()
    disk.arrive(2)
    await disk.record.save(disk)
    assert disk.contents.names() == frozenset()
