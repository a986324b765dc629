"""A transfer in trouble: disks that fail or lie, peers that lie, trackers that are dead, records that are wrong."""

import asyncio
import errno
import os
from pathlib import Path

import pytest

from p2pmodel.errors import LocalResource, NoSpace, Unavailable
from p2pmodel.node.fetch import download, stall
from p2pmodel.node.fetch.pieces import have_record
from p2pmodel.node.snapshot.piece_record import PieceRecord
from p2pmodel.store.files.range_set import RangeSet
from p2pmodel.swarm.memory import torrent
from tests.support.eventually import PATIENCE, eventually
from tests.support.node_swarm import CONTENTS, TRACKER, Swarm, assert_nothing_runs

SEEDER, LIAR = "127.0.0.2", "127.0.0.3"


@pytest.fixture
def swarm(tmp_path: Path) -> Swarm:
    return Swarm(tmp_path)


def failing_writes(monkeypatch: pytest.MonkeyPatch, number: int, after: int) -> None:
    """Let the in-memory engine's disk fail with `number` once `after` pieces are written."""
    write, written = torrent._write, 0

    def sometimes(path: Path, offset: int, data: bytes) -> None:
        nonlocal written
        if written >= after:
            raise OSError(number, os.strerror(number), str(path))
        written += 1
        write(path, offset, data)

    monkeypatch.setattr(torrent, "_write", sometimes)


@pytest.mark.parametrize(
    ("number", "error", "message"),
    [
        (errno.ENOSPC, NoSpace, r"no space left .*\.part.* bytes still to come; .*it resumes"),
        (errno.EIO, LocalResource, r"\.part: Input/output error; .*it resumes"),
    ],
)
async def test_a_failing_disk_ends_the_transfer_and_received_bytes_stay(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch, number: int, error: type, message: str
) -> None:
    async with swarm.engine(SEEDER) as seeder:
        await swarm.seed(seeder)
        with monkeypatch.context() as patched:
            failing_writes(patched, number, after=4)
            async with swarm.engine() as engine:
                with pytest.raises(error, match=message):
                    async with swarm.transfer(engine) as transferring:
                        await transferring.download()
        assert not swarm.published()
        staged = swarm.cache().repo(swarm.metainfo.manifest.repo).staged
        assert PieceRecord(staged, swarm.metainfo).load(), "what is durable was not recorded"
        async with swarm.engine() as engine, swarm.transfer(engine) as transferring:
            await transferring.download()
            assert transferring.progress().from_cache > 0
    assert swarm.published() == CONTENTS
    await assert_nothing_runs()


async def test_a_corrupt_peer_is_banned_and_named(swarm: Swarm) -> None:
    wrong = {path: bytes(len(data)) for path, data in CONTENTS.items()}
    async with swarm.engine(LIAR) as liar, swarm.engine(SEEDER) as seeder, swarm.engine() as engine:
        await swarm.seed(liar, wrong)
        async with swarm.transfer(engine, stall_timeout=9) as transferring:
            downloading = asyncio.create_task(transferring.download())
            await eventually(lambda: bool(swarm.heard.notes), what="the liar is banned")
            await swarm.seed(seeder)
            await asyncio.wait_for(downloading, PATIENCE)
            assert transferring.progress().rejected > 0
    assert swarm.heard.notes == [f"peer {LIAR} sent bad pieces and is banned"]
    assert swarm.published() == CONTENTS


async def test_dead_trackers_are_named_without_their_token(swarm: Swarm) -> None:
    swarm.network.dead_trackers.add(TRACKER)
    async with swarm.engine() as engine:
        with pytest.raises(Unavailable, match=r"tracker http://tracker\.test: connection refused") as caught:
            async with swarm.transfer(engine) as transferring:
                await transferring.download()
    assert "/announce" not in str(caught.value)


async def test_a_tracker_that_came_back_is_no_reason(swarm: Swarm) -> None:
    swarm.network.dead_trackers.add(TRACKER)
    async with swarm.engine() as engine, swarm.transfer(engine) as transferring:
        downloading = asyncio.create_task(transferring.download())

        def has_failed() -> bool:
            return bool(transferring._attempt and transferring._attempt.stall.silent_trackers)

        await eventually(has_failed, what="the tracker failed")
        swarm.network.dead_trackers.clear()
        next(iter(engine.torrents.values())).announce()
        with pytest.raises(Unavailable) as caught:
            await downloading
    assert "tracker" not in str(caught.value)


async def test_the_reason_of_a_wait_is_shown_after_a_while(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stall, "QUIET", 0.0)
    async with (
        swarm.engine() as engine,
        swarm.engine(SEEDER) as seeder,
        swarm.transfer(engine, stall_timeout=9) as transferring,
    ):
        downloading = asyncio.create_task(transferring.download())
        await eventually(lambda: bool(transferring.progress().waiting_for), what="it says so")
        assert transferring.progress().waiting_for.startswith("peers (none is connected)")
        await swarm.seed(seeder)
        await asyncio.wait_for(downloading, PATIENCE)
        assert transferring.progress().waiting_for == ""


async def test_a_disk_that_damages_every_download_is_given_up(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    write = torrent._write
    monkeypatch.setattr(torrent, "_write", lambda path, offset, data: write(path, offset, b"\xff" + data[1:]))
    index = swarm.metainfo.manifest.files.index(swarm.snapshot.file("nested/other.bin"))
    async with swarm.engine(SEEDER) as seeder, swarm.engine() as engine:
        await swarm.seed(seeder)
        with pytest.raises(LocalResource, match=r"nested/other\.bin is damaged after each download"):
            async with swarm.transfer(engine, files=frozenset({index})) as transferring:
                await asyncio.wait_for(transferring.download(), PATIENCE)
    assert swarm.heard.notes == ["nested/other.bin was damaged on this disk; its bad pieces are downloaded again"] * (
        download.MAX_DAMAGE - 1
    )
    assert not swarm.published()
    await assert_nothing_runs()


@pytest.mark.parametrize("root", ["", "ab" * 32])
async def test_a_record_of_other_checks_is_not_trusted(swarm: Swarm, root: str) -> None:
    staged, file = swarm.cache().repo(swarm.metainfo.manifest.repo).staged, swarm.snapshot.file("model.safetensors")
    path = staged.path_of(file)
    path.write_bytes(b"?" * file.size)
    staged.record_checked(path, file, root, RangeSet([(0, file.size)]))
    async with swarm.engine(SEEDER) as seeder, swarm.engine() as engine:
        await swarm.seed(seeder)
        async with swarm.transfer(engine) as transferring:
            await transferring.download()
            assert transferring.progress().from_cache == 0
    assert swarm.published() == CONTENTS


@pytest.mark.parametrize("at_once", [False, True], ids=["now and then", "at once"])
async def test_durable_pieces_are_recorded_during_the_transfer(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch, *, at_once: bool
) -> None:
    if at_once:
        monkeypatch.setattr(have_record, "LEAST_UNSAVED", 1)
    monkeypatch.setattr(have_record, "SAVE_EVERY", 3600 if at_once else 0.02)
    metainfo = swarm.metainfo
    record = PieceRecord(swarm.cache().repo(metainfo.manifest.repo).staged, metainfo)
    half = CONTENTS["model.safetensors"][:384_000].ljust(768_000, b"\0")
    # Small files are right, and may be recorded before they are published.
    limits = {span: 3 if "safetensors" in span.path else None for span in metainfo.layout.spans}
    good = {p for span, limit in limits.items() for p in list(span.pieces)[:limit]}

    halves = dict(CONTENTS) | dict.fromkeys(("model.safetensors", "copy.safetensors"), half)
    async with swarm.engine() as engine, swarm.engine(SEEDER) as seeder, swarm.engine(LIAR) as second:
        await swarm.seed(seeder, halves)
        async with swarm.transfer(engine, stall_timeout=9) as transferring:
            downloading = asyncio.create_task(transferring.download())
            await eventually(lambda: bool(record.load()), what="some pieces are recorded")
            assert record.load() <= good
            await swarm.seed(second)
            await asyncio.wait_for(downloading, PATIENCE)
    assert swarm.published() == CONTENTS
