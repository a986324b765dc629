"""From staged pieces to a snapshot: flushes shared, blobs once, refs last, and different errors for wrong bytes."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pytest
from filelock import FileLock

from p2pmodel.errors import IntegrityError
from p2pmodel.node.fetch import publisher as fetch_publisher
from p2pmodel.node.fetch.publisher import BATCH, DamagedFile, HashAhead, Publisher
from p2pmodel.node.snapshot.inventory import take_inventory
from p2pmodel.node.snapshot.piece_record import PieceRecord
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.file_links import FileLinks
from p2pmodel.store.staging import Staging
from p2pmodel.swarm.engine import AddTorrent
from p2pmodel.swarm.memory.torrent import MemoryTorrent
from p2pmodel.swarm.torrents import build, parse
from tests.support.eventually import PATIENCE, eventually
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_swarm import Swarm, assert_nothing_runs
from tests.support.stored import publish
from tests.support.torrent_files import trees_of

WEIGHTS = os.urandom(600_000)
CONTENTS: Mapping[str, bytes] = {
    "config.json": b"{}",
    "copy.safetensors": WEIGHTS,
    "empty.txt": b"",
    "model.safetensors": WEIGHTS,
    "nested/also-empty.txt": b"",
}


OTHER: Mapping[str, bytes] = {path: bytes(byte ^ 1 for byte in data) for path, data in CONTENTS.items()}
"""Of the same sizes."""


class WatchedTorrent:
    """A torrent of the in-memory engine that counts its fences."""

    def __init__(self, torrent: MemoryTorrent) -> None:
        self._torrent = torrent
        self.flushes = 0

    async def flush(self) -> None:
        self.flushes += 1
        await asyncio.sleep(0)
        await self._torrent.flush()


class Desk:
    """A snapshot of which every piece is staged, and a publisher of it."""

    def __init__(self, root: Path, contents: Mapping[str, bytes] = CONTENTS) -> None:
        self.swarm = Swarm(root, snapshot_of(contents))
        self.commit = self.swarm.snapshot.commit
        self.ended_with: list[dict[str, str]] = []
        """The refs that were there when the last blob was."""
        self.hashed: dict[int, bool] = {}
        """By verified file, whether its hash proved it."""
        self.on_disk_with: list[int] = []
        """How many blobs were there each time a large file could be read."""

    async def on_disk(self) -> None:
        blobs = self.repo.folder / "blobs"
        self.on_disk_with.append(len(list(blobs.iterdir())) if blobs.exists() else 0)

    def file_verified(self, index: int, *, hashed: bool) -> None:
        self.hashed[index] = hashed

    def publishing(self) -> None:
        self.ended_with.append(self.repo.refs())

    @cached_property
    def repo(self) -> RepoCache:
        return self.swarm.cache().repo(self.swarm.metainfo.manifest.repo)

    @property
    def staging(self) -> Staging:
        return self.repo.staging(self.commit)

    def all(self) -> frozenset[int]:
        return frozenset(range(len(self.swarm.metainfo.manifest.files)))

    def indexes(self, *paths: str) -> frozenset[int]:
        return frozenset(i for i, f in enumerate(self.swarm.metainfo.manifest.files) if f.path in paths)

    def stage(self, damage: str = "") -> None:
        for index, file in enumerate(self.swarm.metainfo.manifest.files):
            if file.size and self.repo.blob(file) is None:
                content = bytearray(self.swarm.snapshot.contents[file.path])
                if file.path == damage:
                    content[-1] ^= 1
                self.repo.staged.paths_of(self.swarm.metainfo.manifest.files)[index].write_bytes(content)

    def replace_torrent(self, contents: Mapping[str, bytes]) -> None:
        """Let the torrent have the pieces of other `contents` than its manifest says, and stage those."""
        manifest = self.swarm.metainfo.manifest
        self.swarm.metainfo = parse(build(manifest, trees_of(dict(contents), self.swarm.metainfo.layout.piece_length)))
        for file, path in zip(manifest.files, self.repo.staged.paths_of(manifest.files), strict=True):
            if file.size:
                path.write_bytes(contents[file.path])

    @asynccontextmanager
    async def publisher(
        self, *, signed: bool = False, before: bool = True
    ) -> AsyncIterator[tuple[Publisher, WatchedTorrent]]:
        """`before`: the pieces were there before this attempt."""
        metainfo, repo = self.swarm.metainfo, self.repo
        every = frozenset(range(metainfo.layout.piece_count))
        inventory = take_inventory(repo, metainfo, known=every)
        links = FileLinks(repo)
        for index, path in enumerate(inventory.paths):
            links.lead_to(index, path)
        files = {at: str(links.path(index)) for index, at in enumerate(metainfo.file_indexes)}
        async with self.swarm.engine() as engine:
            torrent = await engine.add(AddTorrent(metainfo.raw, repo.folder, files, inventory.have))
            watched = WatchedTorrent(torrent)
            publisher = Publisher(
                repo,
                self.staging,
                metainfo,
                watched,  # type: ignore[arg-type]
                inventory if before else replace(inventory, have=frozenset()),
                links=links,
                observer=self,
                hashes_signed=signed,
            )
            yield publisher, watched
            links.remove()
        await assert_nothing_runs()

    async def publish(self, files: frozenset[int] | None = None, **how: bool) -> WatchedTorrent:
        wanted = self.all() if files is None else files
        async with self.publisher(**how) as (publisher, torrent):
            for index in wanted:
                publisher.file_is_whole(index)
            await publisher.publish(wanted, ("main",))
        return torrent


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def test_everything_is_published_and_the_staging_area_is_left_empty(desk: Desk) -> None:
    desk.stage()
    every = range(desk.swarm.metainfo.layout.piece_count)
    PieceRecord(desk.repo.staged, desk.swarm.metainfo).save(every, every)
    await desk.publish()
    assert desk.swarm.published() == CONTENTS
    assert desk.ended_with == [{}], "a ref was there before the last blob"
    assert list((desk.repo.private / "staging").iterdir()) == []
    assert {path.name for path in (desk.repo.folder / "blobs").iterdir()} == {
        file.etag for file in desk.swarm.metainfo.manifest.files
    }
    assert all(desk.repo.is_verified(file) for file in desk.swarm.metainfo.manifest.files)


async def test_many_small_files_share_flushes(tmp_path: Path) -> None:
    count = 4 * BATCH
    desk = Desk(tmp_path, {f"{n:04}.json": b"%d" % n for n in range(count)})
    desk.stage()
    torrent = await desk.publish()
    assert torrent.flushes <= count / BATCH + (os.cpu_count() or 1)
    assert len(desk.swarm.published()) == count


async def test_a_large_file_can_be_read_before_it_is_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_publisher, "AHEAD_FROM", 2)
    hashed: list[int] = []
    digests = HashAhead.digests

    async def note(self: HashAhead, indexes: Sequence[int]) -> list[str]:
        hashed.append(len(desk.on_disk_with))
        return await digests(self, indexes)

    monkeypatch.setattr(HashAhead, "digests", note)
    desk = Desk(tmp_path, {"model.safetensors": b"large"})
    desk.stage()
    await desk.publish()
    assert (desk.on_disk_with, hashed) == ([0], [1])
    small = Desk(tmp_path / "small", {"a.json": b"1", "b.json": b"2"})
    small.stage()
    await small.publish()
    assert small.on_disk_with == [], "the hash of a small file takes no time"


async def test_a_client_that_downloads_one_blob_holds_up_no_other(desk: Desk) -> None:
    desk.stage()
    repo, file = desk.repo, desk.swarm.snapshot.file("config.json")
    lock = repo.cache.root / ".locks" / repo.repo.cache_folder / f"{file.etag}.lock"
    lock.parent.mkdir(parents=True)
    async with desk.publisher() as (publisher, _):
        for index in desk.all():
            publisher.file_is_whole(index)
        with FileLock(lock):
            publishing = asyncio.create_task(publisher.publish(desk.all(), ("main",)))
            blobs = repo.folder / "blobs"
            await eventually(lambda: blobs.exists() and len(list(blobs.iterdir())) == 2, what="the others")
            assert not repo.blob_path(file).exists()
            assert not repo.refs()
        await asyncio.wait_for(publishing, PATIENCE)
    assert desk.swarm.published() == CONTENTS


async def test_blobs_of_the_cache_need_no_flush(desk: Desk) -> None:
    publish(desk.swarm.cache(), desk.swarm.snapshot, refs=())
    torrent = await desk.publish()
    assert torrent.flushes == 0
    assert desk.swarm.published() == CONTENTS


async def test_a_file_is_fenced_before_it_gets_its_name(desk: Desk) -> None:
    desk.stage()
    wanted = desk.indexes("model.safetensors")
    async with desk.publisher() as (publisher, torrent):
        publishing = asyncio.create_task(publisher.publish(wanted, ("main",)))
        await asyncio.sleep(0.02)
        assert torrent.flushes == 0
        assert desk.repo.refs() == {}
        publisher.file_is_whole(*wanted)
        publisher.file_is_whole(*wanted)
        await asyncio.wait_for(publishing, PATIENCE)
        assert torrent.flushes == 1
    assert desk.swarm.published() == {"model.safetensors": WEIGHTS}


async def test_damage_on_this_disk_names_the_file(desk: Desk) -> None:
    desk.stage(damage="model.safetensors")
    with pytest.raises(DamagedFile) as caught:
        await desk.publish()
    assert caught.value.path == "model.safetensors"
    assert {caught.value.index} == desk.indexes("model.safetensors")
    assert desk.swarm.published() == {}


async def test_a_torrent_that_contradicts_the_hub_has_an_error_of_its_own(desk: Desk) -> None:
    desk.stage()
    wrong = dict(CONTENTS) | {"config.json": b"[]"}
    manifest = desk.swarm.metainfo.manifest
    desk.swarm.metainfo = parse(build(manifest, trees_of(wrong, desk.swarm.metainfo.layout.piece_length)))
    file = desk.swarm.snapshot.file("config.json")
    desk.repo.staged.path_of(file).write_bytes(b"[]")
    with pytest.raises(IntegrityError, match=rf"config\.json hash to .*, but its manifest says {file.etag}"):
        await desk.publish()
    assert desk.swarm.published() == {}
    assert desk.repo.blob(file) is None


@pytest.mark.parametrize(("signed", "before"), [(False, False), (True, True)])
async def test_wrong_files_are_noticed_without_a_signature_and_in_what_an_earlier_run_left(
    desk: Desk, *, signed: bool, before: bool
) -> None:
    desk.replace_torrent(OTHER)
    with pytest.raises(IntegrityError, match="but its manifest says"):
        await desk.publish(signed=signed, before=before)
    assert desk.swarm.published() == {}


async def test_a_signature_replaces_the_hashes_of_files_that_came_just_now(desk: Desk) -> None:
    desk.replace_torrent(OTHER)
    torrent = await desk.publish(signed=True, before=False)
    assert torrent.flushes, "a file got its name before it was on disk"
    assert desk.swarm.published() == OTHER, "the files were hashed"
    assert not any(desk.hashed.values()), "a source could be blamed without a proof"
    assert all(desk.repo.is_verified(file) for file in desk.swarm.metainfo.manifest.files)
    assert desk.staging.load_metainfo() is None, "this node has not compared the torrent with the hub's hashes"


async def test_the_torrent_is_stored_for_seeding(desk: Desk) -> None:
    desk.stage()
    await desk.publish()
    assert desk.staging.load_metainfo() == desk.swarm.metainfo.raw


@pytest.mark.parametrize("how", ["adopted", "a part"])
async def test_an_incompletely_verified_torrent_is_not_stored(desk: Desk, how: str) -> None:
    if how == "adopted":
        publish(desk.swarm.cache(), desk.swarm.snapshot, paths=["config.json"], refs=())
    desk.stage()
    await desk.publish(desk.all() if how == "adopted" else desk.indexes("model.safetensors", "empty.txt"))
    assert desk.staging.load_metainfo() is None


async def test_a_selection_without_files_is_an_empty_snapshot(desk: Desk) -> None:
    await desk.publish(frozenset())
    assert desk.repo.refs() == {"main": desk.commit}
    assert desk.swarm.published() == {}


async def test_a_cancelled_publication_leaves_no_snapshot(desk: Desk) -> None:
    desk.stage()
    async with desk.publisher() as (publisher, _):
        for index in desk.all() - desk.indexes("model.safetensors"):
            publisher.file_is_whole(index)
        publishing = asyncio.create_task(publisher.publish(desk.all(), ("main",)))
        copy = desk.swarm.snapshot.file("copy.safetensors")
        await eventually(lambda: desk.repo.blob(copy) is not None, what="the copy is published")
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing
    assert desk.repo.commits() == []
