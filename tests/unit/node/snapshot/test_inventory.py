"""The inventory: blobs are hashed once, staged pieces are read only where there are bytes."""

import os
from pathlib import Path

import pytest

from p2pmodel.core.content.layout import FileSpan, piece_length_for
from p2pmodel.errors import Interrupted
from p2pmodel.node.snapshot.inventory import adopt, recover, salvage, take_inventory
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.range_set import RangeSet, write_record
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_swarm import Swarm
from tests.support.stored import publish, stage

PIECE = piece_length_for(0)
WEIGHTS = os.urandom(5 * PIECE + 1000)
FILES = {"config.json": b"{}", "empty.txt": b"", "model.safetensors": WEIGHTS, "same.safetensors": WEIGHTS}


@pytest.fixture
def swarm(tmp_path: Path) -> Swarm:
    return Swarm(tmp_path, snapshot_of(FILES))


@pytest.fixture
def repo(swarm: Swarm) -> RepoCache:
    return swarm.cache().repo(swarm.metainfo.manifest.repo)


@pytest.fixture
def span(swarm: Swarm) -> FileSpan:
    return next(span for span in swarm.metainfo.layout.spans if span.path == "model.safetensors")


def staged(swarm: Swarm, repo: RepoCache, content: bytes = b"") -> Path:
    return stage(repo, swarm.metainfo.manifest, swarm.snapshot.file("model.safetensors"), content)


def pieces(span: FileSpan, *numbers: int) -> frozenset[int]:
    return frozenset(span.first_piece + number for number in numbers)


def test_an_empty_cache_has_no_pieces(swarm: Swarm, repo: RepoCache) -> None:
    found = take_inventory(repo, swarm.metainfo, known=frozenset())
    assert found.have == found.complete == frozenset()
    assert len(set(found.paths)) == len(FILES)


def test_blobs_are_found_in_place_and_hashed_once(swarm: Swarm, repo: RepoCache) -> None:
    publish(repo.cache, swarm.snapshot, paths=["empty.txt", "model.safetensors"], refs=())
    for file in swarm.snapshot.files.values():
        repo.forget_verified(file)
    for expected in (2 * len(WEIGHTS), 0):
        counts: list[int] = []
        found = take_inventory(repo, swarm.metainfo, known=frozenset(), on_bytes=counts.append, jobs=2)
        indexes = {path: i for i, path in enumerate(sorted(FILES))}
        assert found.complete == {indexes[p] for p in ("empty.txt", "model.safetensors", "same.safetensors")}
        assert found.paths[indexes["model.safetensors"]] == repo.blob(swarm.snapshot.file("model.safetensors"))
        assert found.have == {p for i in found.complete for p in swarm.metainfo.layout.spans[i].pieces}
        assert sum(counts) in (expected, expected // 2)  # two threads may hash equal contents at once


def test_only_right_pieces_of_a_staged_file_count(swarm: Swarm, repo: RepoCache, span: FileSpan) -> None:
    content = bytearray(WEIGHTS)
    content[2 * PIECE + 7] ^= 1
    staged(swarm, repo, bytes(content))
    found = take_inventory(repo, swarm.metainfo, known=frozenset())
    assert found.have == pieces(span, 0, 1, 3, 4, 5)
    assert found.complete == frozenset()


@pytest.mark.parametrize(
    ("ranges", "wrong", "corrupt"),
    [([(0, 2 * PIECE)], False, False), ([(0, 2 * PIECE)], True, True), ([(0, 100)], False, True), ([], True, False)],
    ids=["right", "wrong", "less than a piece", "not recorded"],
)
def test_recorded_bytes_that_will_be_overwritten_are_marked_for_their_readers(
    swarm: Swarm, repo: RepoCache, ranges: list[tuple[int, int]], wrong: bool, corrupt: bool
) -> None:
    """A mirror sent them; whether bytes of less than a piece are right is not known."""
    whole = len(WEIGHTS) if ranges != [(0, 100)] else 100
    content = (bytes(PIECE) if wrong else WEIGHTS[:PIECE]) + WEIGHTS[PIECE:]
    path = staged(swarm, repo, content[:whole].ljust(len(WEIGHTS), b"\0"))
    file = swarm.snapshot.file("model.safetensors")
    write_record(path, file, RangeSet(ranges), RangeSet())
    take_inventory(repo, swarm.metainfo, known=frozenset())
    assert repo.recently_corrupt(file) is corrupt


def test_only_extents_with_data_are_read(swarm: Swarm, repo: RepoCache, span: FileSpan) -> None:
    path = staged(swarm, repo)
    with path.open("r+b") as file:
        for number in (1, 4):
            file.seek(number * PIECE)
            file.write(WEIGHTS[number * PIECE : (number + 1) * PIECE])
        file.truncate(len(WEIGHTS))
    read: list[int] = []
    assert recover(path, span, swarm.metainfo, frozenset(), read.append) == pieces(span, 1, 4)
    assert read == [PIECE, PIECE]


def test_a_piece_that_several_extents_touch_is_read_once(swarm: Swarm, repo: RepoCache, span: FileSpan) -> None:
    path = staged(swarm, repo)
    with path.open("r+b") as file:
        for offset in (0, PIECE // 4, PIECE // 2):
            file.seek(offset)
            file.write(b"x" * 4096)
        file.truncate(len(WEIGHTS))
    read: list[int] = []
    assert recover(path, span, swarm.metainfo, frozenset(), read.append) == frozenset()
    assert read == [PIECE]


def test_recorded_pieces_are_not_read_again(swarm: Swarm, repo: RepoCache, span: FileSpan) -> None:
    path = staged(swarm, repo, b"x" * len(WEIGHTS))
    read: list[int] = []
    assert recover(path, span, swarm.metainfo, pieces(span, 0, 5), read.append) == pieces(span, 0, 5)
    assert sum(read) == 4 * PIECE


@pytest.mark.parametrize(("size", "trusted"), [(0, ()), (PIECE - 1, ()), (PIECE, (0,)), (2 * PIECE + 1, (0, 1))])
def test_recorded_pieces_that_a_short_file_cannot_hold_are_not_trusted(
    swarm: Swarm, repo: RepoCache, span: FileSpan, size: int, trusted: tuple[int, ...]
) -> None:
    path = staged(swarm, repo, WEIGHTS[:size])
    assert recover(path, span, swarm.metainfo, frozenset(span.pieces)) == pieces(span, *trusted)


def test_bytes_behind_the_end_of_the_file_are_not_looked_at(swarm: Swarm, repo: RepoCache, span: FileSpan) -> None:
    path = staged(swarm, repo, WEIGHTS + b"x" * PIECE)
    assert recover(path, span, swarm.metainfo, frozenset()) == frozenset(span.pieces)


def test_a_file_that_was_never_staged_has_no_pieces(swarm: Swarm, span: FileSpan, tmp_path: Path) -> None:
    assert recover(tmp_path / "absent", span, swarm.metainfo, frozenset(span.pieces)) == frozenset()


def test_adopting_takes_right_blobs_only(swarm: Swarm, repo: RepoCache) -> None:
    publish(repo.cache, swarm.snapshot, refs=())
    config, weights = swarm.snapshot.file("config.json"), swarm.snapshot.file("model.safetensors")
    repo.blob_path(config).write_bytes(b"[]")
    repo.forget_verified(weights)
    assert adopt(repo, swarm.snapshot.manifest.files) == {weights.etag, swarm.snapshot.file("empty.txt").etag}
    assert repo.is_verified(weights)
    assert not repo.is_verified(config)


@pytest.mark.parametrize("through", ["adopt", "take_inventory"])
def test_a_count_that_raises_ends_the_pass(swarm: Swarm, repo: RepoCache, through: str) -> None:
    publish(repo.cache, swarm.snapshot, refs=())
    files = swarm.snapshot.manifest.files
    for file in files:
        repo.forget_verified(file)

    def stop(_size: int) -> None:
        raise Interrupted("stopped")

    def run() -> None:
        if through == "adopt":
            adopt(repo, files, stop)
        else:
            take_inventory(repo, swarm.metainfo, known=frozenset(), on_bytes=stop)

    with pytest.raises(Interrupted):
        run()


def test_the_right_pieces_of_a_damaged_blob_are_copied_and_the_blob_stays(
    swarm: Swarm, repo: RepoCache, span: FileSpan
) -> None:
    publish(repo.cache, swarm.snapshot, paths=["model.safetensors"], refs=())
    blob = repo.blob_path(swarm.snapshot.file("model.safetensors"))
    damaged = bytearray(WEIGHTS)
    damaged[2 * PIECE] ^= 1
    blob.write_bytes(damaged)
    found = take_inventory(repo, swarm.metainfo, known=frozenset())
    assert span.index not in found.complete
    assert found.have.intersection(span.pieces) == pieces(span, 0, 1, 3, 4, 5)
    assert found.paths[span.index] != blob
    assert found.paths[span.index].read_bytes()[:PIECE] == WEIGHTS[:PIECE]
    assert blob.read_bytes() == damaged
    again = take_inventory(repo, swarm.metainfo, known=frozenset())
    assert again.have == found.have


def test_a_full_disk_leaves_a_damaged_blob_to_be_downloaded(
    swarm: Swarm, repo: RepoCache, span: FileSpan, tmp_path: Path
) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(WEIGHTS)
    assert salvage(blob, tmp_path / "absent" / "staged", span, swarm.metainfo) == frozenset()
    assert salvage(blob, tmp_path / "staged", span, swarm.metainfo) == frozenset(span.pieces)
