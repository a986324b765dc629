"""Torrents of a snapshot in the cache: hashed and known trees, and equal results."""

import asyncio
import dataclasses
import os
from pathlib import Path

import pytest

from p2pmodel.coordinator.tokens import announce_url
from p2pmodel.core.content.layout import piece_length_for
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.errors import EntryNotFound, IntegrityError
from p2pmodel.node.reporter import Progress
from p2pmodel.node.snapshot.torrents.torrent_builder import TorrentBuilder
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.swarm.torrents import Format, build, parse, webseed_url
from tests.support.hub_snapshot import HubSnapshot, snapshot_of
from tests.support.recording_reporter import RecordingReporter
from tests.support.stored import publish
from tests.support.swarm_certificates import new_authority
from tests.support.torrent_files import trees_of, v1_pieces_of

CONTENTS = {
    "config.json": b'{"a": 1}',
    "empty.txt": b"",
    "model.safetensors": os.urandom(700_000),
    "nested/other.bin": os.urandom(300_001),
}
LENGTH = piece_length_for(1)
AUTHORITY = new_authority().pem.decode()
TRACKER = "http://tracker.test/announce"


class Bench:
    """A cache that holds the snapshot, and what builders report."""

    def __init__(self, root: Path) -> None:
        self.snapshot: HubSnapshot = snapshot_of(CONTENTS)
        self.cache = HubCache(root)
        self.manifest: Manifest = publish(self.cache, self.snapshot)
        self.seen: list[Progress] = []

    @property
    def repo(self) -> RepoCache:
        return self.cache.repo(self.manifest.repo)

    def builder(self, **known: object) -> TorrentBuilder:
        self.seen.clear()
        return TorrentBuilder(self.repo, self.manifest, RecordingReporter(self.seen.append), **known)  # type: ignore[arg-type]

    async def build(self, *formats: Format) -> dict[Format, bytes]:
        built = await self.builder().build(formats, trackers=[TRACKER], endpoints=["http://m.test"])
        await asyncio.sleep(0)
        return built

    @property
    def hashed(self) -> set[int]:
        """The totals of the hashing passes that were reported."""
        return {progress.total for progress in self.seen if progress.phase == "hashing"}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def expected(manifest: Manifest, form: Format) -> bytes:
    return build(
        manifest,
        trees_of(CONTENTS, LENGTH),
        format=form,
        v1_pieces=v1_pieces_of(CONTENTS, manifest, LENGTH, form),
        trackers=[TRACKER],
        webseeds=[webseed_url("http://m.test", manifest, form)],
    )


async def test_a_private_torrent_has_no_announce_key(bench: Bench) -> None:
    trackers = [announce_url("https://10.0.0.1:6969/prefix", "0123456789abcdef"), "https://[fd00::1]:6969/announce"]
    (private,) = (await bench.builder(authority=AUTHORITY).build((), trackers=trackers)).values()
    assert parse(private).trackers == ("https://10.0.0.1:6969/prefix/announce", "https://[fd00::1]:6969/announce")
    (public,) = (await bench.builder().build((), trackers=trackers)).values()
    assert parse(public).trackers == tuple(trackers), "other clients join it"


async def test_every_format_matches_the_contents(bench: Bench) -> None:
    built = await bench.build("v1", "hybrid", "v1")
    assert list(built) == ["v2", "v1", "hybrid"]
    for form, raw in built.items():
        assert raw == expected(bench.manifest, form), form


async def test_without_exports_there_is_v2_alone(bench: Bench) -> None:
    assert await bench.build() == {"v2": expected(bench.manifest, "v2")}
    assert bench.hashed == {bench.manifest.total_size}


async def test_trees_of_the_mirroring_pass_are_not_hashed_again(bench: Bench) -> None:
    trees = trees_of(CONTENTS, LENGTH)
    built = await bench.builder(known=trees).build(())
    assert parse(built["v2"]).trees == trees
    assert bench.hashed == set()
    del trees["nested/other.bin"]
    bench.repo.staging(bench.manifest.commit).save_metainfo(b"")
    built = await bench.builder(known=trees).build(())
    assert parse(built["v2"]).trees == trees_of(CONTENTS, LENGTH)
    assert bench.hashed == {300_001}


async def test_a_torrent_that_is_going_to_be_signed_is_compared_with_the_hubs_hashes(bench: Bench) -> None:
    file = bench.snapshot.file("nested/other.bin")
    built = await bench.builder(proves=True).build((), trackers=[TRACKER], endpoints=["http://m.test"])
    assert built["v2"] == expected(bench.manifest, "v2")
    bench.repo.staging(bench.manifest.commit).save_metainfo(b"")
    blob = bench.repo.blob(file)
    assert blob is not None
    before = blob.stat()
    blob.write_bytes(b"x" * file.size)
    os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert await bench.builder().build(())
    bench.repo.staging(bench.manifest.commit).save_metainfo(b"")
    with pytest.raises(IntegrityError, match=r"nested/other\.bin of org/model@\w+ is damaged in the cache"):
        await bench.builder(proves=True).build(())
    assert bench.repo.lacking([file]) == [file], "a fetch would not repair it"


async def test_a_restart_hashes_no_file(bench: Bench) -> None:
    first = await bench.build()
    assert await bench.build() == first
    assert bench.hashed == set()
    assert parse((await bench.builder().build(("hybrid",)))["hybrid"]).manifest == bench.manifest
    assert bench.hashed == {bench.manifest.total_size}, "only the SHA-1 pass"


async def test_a_blob_that_changed_since_is_hashed_again(bench: Bench) -> None:
    first = await bench.build()
    blob = bench.repo.blob(bench.snapshot.file("nested/other.bin"))
    assert blob is not None
    os.utime(blob, (1, 1))
    assert await bench.build() == first
    assert bench.hashed == {300_001}


@pytest.mark.parametrize("record", ["none", "damaged", "another repository's"])
async def test_a_record_that_does_not_fit_is_ignored(bench: Bench, record: str) -> None:
    first = await bench.build()
    staging = bench.repo.staging(bench.manifest.commit)
    if record == "none":
        staging.save_metainfo(b"")
    elif record == "damaged":
        staging.save_metainfo(first["v2"][:-9])
    else:
        other = dataclasses.replace(bench.manifest, private=True)
        staging.save_metainfo(expected(other, "v2"))
    assert await bench.build() == first
    assert bench.hashed == {bench.manifest.total_size}


async def test_a_private_snapshot_has_private_torrents(bench: Bench) -> None:
    public = await bench.build("v1", "hybrid")
    bench.manifest = dataclasses.replace(bench.manifest, private=True)
    private = await bench.build("v1", "hybrid")
    for form in private:
        assert b"7:privatei1e" in private[form]
        assert b"7:privatei1e" not in public[form]


async def test_a_file_that_is_not_here_is_named(bench: Bench) -> None:
    bench.repo.blob_path(bench.snapshot.file("nested/other.bin")).unlink()
    with pytest.raises(EntryNotFound, match=r"nested/other\.bin of org/model@\w+ is not in the cache"):
        await bench.build()


async def test_hashing_ends_soon_after_a_cancel(tmp_path: Path) -> None:
    size = 64 << 20
    snapshot = snapshot_of({"model.safetensors": bytes(size)})
    cache = HubCache(tmp_path)
    publish(cache, snapshot)
    seen: list[Progress] = []

    def see(progress: Progress) -> None:
        seen.append(progress)
        building.cancel()

    building = asyncio.create_task(
        TorrentBuilder(cache.repo(snapshot.manifest.repo), snapshot.manifest, RecordingReporter(see)).build(())
    )
    with pytest.raises(asyncio.CancelledError):
        await building
    await asyncio.get_running_loop().shutdown_default_executor()
    assert 0 < seen[-1].done < size


@pytest.mark.parametrize(
    ("tracker", "kept"),
    [(TRACKER, ["http://m.test"]), ("http://127.0.0.1:1/announce", ["http://127.0.0.1:8090", "http://m.test"])],
)
async def test_a_torrent_for_other_machines_has_no_web_seed_on_loopback(
    bench: Bench, tracker: str, kept: list[str]
) -> None:
    endpoints = ["http://127.0.0.1:8090", "http://m.test"]
    built = await bench.builder().build((), trackers=[tracker], endpoints=endpoints)
    assert parse(built["v2"]).webseeds == tuple(webseed_url(endpoint, bench.manifest) for endpoint in kept)
