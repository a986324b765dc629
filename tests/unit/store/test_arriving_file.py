"""What of a file may be read while another task or process writes it, and whether that proved right."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.store.arriving_file import ArrivingFile
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.files import partial_file
from p2pmodel.store.files.partial_file import PartialFile
from p2pmodel.store.files.range_set import RangeSet, write_record
from p2pmodel.store.growing_file import GrowingFile, GrowingFileSink
from p2pmodel.store.publish import publish_blob
from p2pmodel.store.staging import StagedContents
from tests.support.hub_snapshot import snapshot_of

DATA = bytes(range(256)) * 64
SNAPSHOT = snapshot_of({"model.safetensors": DATA})
FILE = SNAPSHOT.file("model.safetensors")


@pytest.fixture
def repo(tmp_path: Path) -> RepoCache:
    repo = HubCache(tmp_path / "hub").repo(SNAPSHOT.manifest.repo)
    repo.staged.list(SNAPSHOT.manifest)
    return repo


@pytest.fixture
def arriving(repo: RepoCache) -> Iterator[ArrivingFile]:
    with ArrivingFile(repo, FILE) as file:
        yield file


def stage(repo: RepoCache, data: bytes, *ranges: tuple[int, int]) -> Path:
    path = repo.staged.path_of(FILE)
    path.write_bytes(data)
    write_record(path, FILE, RangeSet(ranges), RangeSet())
    return path


def published(repo: RepoCache, data: bytes = DATA) -> None:
    path = repo.staged.path_of(FILE)
    if not path.exists():
        path.write_bytes(data)
    publish_blob(repo, FILE, path)
    repo.mark_verified([FILE])


def test_nothing_is_there_at_first(arriving: ArrivingFile) -> None:
    assert not arriving.look()
    assert (arriving.arrived_bytes, arriving.is_verified, arriving.is_wrong) == (0, False, False)
    with pytest.raises(ValueError, match="nothing of model"):
        arriving.descriptor  # noqa: B018


def test_recorded_ranges_may_be_read_and_are_not_proved(repo: RepoCache, arriving: ArrivingFile) -> None:
    stage(repo, DATA, (0, 100), (200, 300))
    assert arriving.look()
    assert arriving.has(0, 100)
    assert arriving.has(250, 300)
    assert not arriving.has(50, 250)
    assert os.pread(arriving.descriptor, 100, 200) == DATA[200:300]
    assert not arriving.is_proved
    assert not arriving.look(), "nothing new"


def test_an_unchanged_record_is_not_read_again(
    repo: RepoCache, arriving: ArrivingFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load looks at all files twenty times a second."""
    reads: list[Path] = []
    recorded = StagedContents.recorded

    def note(self: StagedContents, path: Path, file: ManifestFile) -> RangeSet:
        reads.append(path)
        return recorded(self, path, file)

    monkeypatch.setattr(StagedContents, "recorded", note)
    stage(repo, DATA, (0, 100))
    for _ in range(3):
        arriving.look()
    assert len(reads) == 1
    stage(repo, DATA, (0, 200))
    assert arriving.look()
    assert arriving.arrived_bytes == 200


def test_the_opened_file_is_proved_by_its_blob(repo: RepoCache, arriving: ArrivingFile) -> None:
    stage(repo, DATA, (0, 100))
    arriving.look()
    published(repo)
    assert arriving.look()
    assert arriving.is_proved
    assert arriving.has(0, FILE.size)
    assert arriving.path.read_bytes() == DATA


def test_a_blob_that_is_there_from_the_start(repo: RepoCache, arriving: ArrivingFile) -> None:
    published(repo)
    arriving.look()
    assert arriving.is_proved
    assert arriving.path.read_bytes() == DATA


def test_a_blob_of_another_process_proves_nothing_about_the_opened_file(
    repo: RepoCache, arriving: ArrivingFile
) -> None:
    staged = stage(repo, DATA, (0, 100))
    arriving.look()
    staged.unlink()
    published(repo)
    arriving.look()
    assert arriving.is_wrong
    assert not arriving.is_proved


def test_a_staged_file_that_was_replaced_is_another_one(repo: RepoCache, arriving: ArrivingFile) -> None:
    stage(repo, DATA, (0, 100))
    arriving.look()
    repo.staged.detach()
    arriving.look()
    assert arriving.is_wrong


def test_ranges_that_leave_the_record_were_wrong(repo: RepoCache, arriving: ArrivingFile) -> None:
    staged = stage(repo, DATA, (0, 100))
    arriving.look()
    write_record(staged, FILE, RangeSet([(0, 50)]), RangeSet())
    arriving.look()
    assert arriving.is_wrong


async def test_wrong_bytes_are_noticed_although_no_look_saw_the_change(
    repo: RepoCache, arriving: ArrivingFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are overwritten, verified and published between two looks."""
    monkeypatch.setattr(partial_file, "RECORD_EVERY", 1)
    path = repo.staged.path_of(FILE)
    async with PartialFile.open(path, FILE, 1 << 17) as part:
        with GrowingFile(repo, FILE).written(path, part.available) as writer:
            sink = GrowingFileSink(part, writer)
            await sink.write(0, bytes(FILE.size))
            arriving.look()
            assert arriving.has(0, FILE.size)
            assert await sink.digest() != FILE.etag
            await sink.discard()
            await sink.write(0, DATA)
            assert await sink.digest() == FILE.etag
    published(repo)
    arriving.look()
    assert arriving.is_wrong


async def test_a_file_from_a_mirror_can_be_mapped_from_its_first_byte_on(
    repo: RepoCache, arriving: ArrivingFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial_file, "RECORD_EVERY", 1)
    async with PartialFile.open(repo.staged.path_of(FILE), FILE, 1 << 17) as part:
        await part.write(5, DATA[5:20])
        arriving.look()
        assert arriving.is_full_length
        await part.discard()
        assert arriving.is_full_length, "a mapped file that becomes shorter kills the process that reads it"
