"""Hashes of whole files and of streams against the naive definition, for all block sizes."""

import hashlib
import os
import random
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pmodel.core.content.layout import BLOCK, MIB
from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.errors import IntegrityError, LocalResource
from p2pmodel.store.files import hashing as module
from p2pmodel.store.files.hashing import StreamingHasher, chunks, hash_snapshot, v1_pieces
from tests.support.hub_snapshot import snapshot_of
from tests.support.naive_merkle import naive_tree

CUTS = st.lists(st.integers(1, 3 * BLOCK), max_size=8)
PIECES = st.sampled_from([BLOCK, 2 * BLOCK, 8 * BLOCK])


def content(size: int, seed: int = 0) -> bytes:
    return random.Random(seed * 1_000_003 + size).randbytes(size)


def described(data: bytes, path: str = "model.bin") -> ManifestFile:
    return snapshot_of({path: data}).file(path)


def written(folder: Path, contents: dict[str, bytes]) -> list[tuple[ManifestFile, Path]]:
    found = []
    for file in snapshot_of(contents).manifest.files:
        path = folder / file.etag
        path.write_bytes(contents[file.path])
        found.append((file, path))
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 12 * BLOCK + 5),
    PIECES,
    st.lists(st.integers(1, 3 * BLOCK), max_size=8),
    st.sampled_from(["a.bin", "a.txt"]),
)
def test_a_stream_in_any_cut_gives_etag_and_tree(size: int, piece_length: int, cuts: list[int], path: str) -> None:
    data = content(size)
    file = described(data, path)
    hasher = StreamingHasher(file, piece_length)
    position = 0
    for cut in [*cuts, size]:
        hasher.update(memoryview(data)[position : position + cut])
        position = min(size, position + cut)
    assert hasher.hashed == size
    assert hasher.digest() == file.etag
    assert hasher.tree() == (naive_tree(data, piece_length) if size else None)
    assert hasher.tree() == hasher.tree()


def test_a_stream_that_is_too_long_or_not_done_is_an_error() -> None:
    hasher = StreamingHasher(described(b"abc"), BLOCK)
    hasher.update(b"ab")
    with pytest.raises(ValueError, match="2 of 3 bytes"):
        hasher.tree()
    with pytest.raises(IntegrityError, match=r"model.bin is longer than 3 bytes"):
        hasher.update(b"cd")
    hasher.update(b"c")
    assert hasher.digest() == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("piece_length", [BLOCK, 4 * BLOCK, 64 * BLOCK])
@pytest.mark.parametrize("contents", [False, True])
def test_a_snapshot_is_hashed_as_its_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int, piece_length: int, contents: bool
) -> None:
    monkeypatch.setattr(module, "SEGMENT", 8 * BLOCK)
    monkeypatch.setattr(module, "CHUNK", 2 * BLOCK)
    sizes = [0, 1, BLOCK, 4 * BLOCK, 4 * BLOCK + 1, 40 * BLOCK + 77, 64 * BLOCK]
    data = {f"f{i}.bin": content(size, i) for i, size in enumerate(sizes)} | {"n/readme.md": b"text"}
    files = written(tmp_path, data)
    counted: list[int] = []
    found = hash_snapshot(files, piece_length, contents=contents, jobs=jobs, on_bytes=counted.append)
    assert found.trees == {path: naive_tree(held, piece_length) for path, held in data.items() if held}
    assert found.etags == ({f.path: f.etag for f, _ in files} if contents else {})
    assert sum(counted) == sum(map(len, data.values()))
    assert found.v1_pieces is None


def test_chunks_are_multiples_of_a_block() -> None:
    """Otherwise a leaf would be cut in two."""
    assert module.CHUNK % BLOCK == 0


@pytest.mark.parametrize("piece_length", [0, -1, BLOCK - 1, BLOCK // 2, 3 * BLOCK])
def test_a_piece_length_that_bep_52_forbids_is_refused(piece_length: int) -> None:
    with pytest.raises(ValueError, match="not a power of two"):
        hash_snapshot([], piece_length)
    with pytest.raises(ValueError, match="not a power of two"):
        StreamingHasher(described(b""), piece_length)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_another_size_is_refused(tmp_path: Path, change: int) -> None:
    [(file, path)] = written(tmp_path, {"a.bin": b"abc"})
    os.truncate(path, 3 + change)
    with pytest.raises(IntegrityError, match=rf"has {3 + change} bytes, but a.bin should have 3"):
        hash_snapshot([(file, path)], BLOCK)


def test_a_file_that_shrinks_meanwhile_is_an_error_and_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(3 * module.CHUNK))
    parts = chunks(path, 0, 3 * module.CHUNK)
    next(parts)
    os.truncate(path, module.CHUNK + 1)
    with pytest.raises(IntegrityError, match="became shorter while it was read"):
        list(parts)


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(LocalResource, match=r"no such file or directory at .*gone"):
        hash_snapshot([(described(b"abc"), tmp_path / "gone")], BLOCK)


def test_the_caller_can_stop_it(tmp_path: Path) -> None:
    files = written(tmp_path, {f"f{i}.bin": content(3 * MIB, i) for i in range(4)})
    seen: list[int] = []

    def stop(count: int) -> None:
        seen.append(count)
        raise KeyboardInterrupt

    for contents in (False, True):
        seen.clear()
        with pytest.raises(KeyboardInterrupt):
            hash_snapshot(files, BLOCK, contents=contents, on_bytes=stop, jobs=2)
        assert sum(seen) < 12 * MIB


def test_memory_stays_bounded(tmp_path: Path) -> None:
    size = 64 * MIB
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, size)
    tracemalloc.start()
    try:
        hash_snapshot([(ManifestFile("a", size, "0" * 40), path)], MIB, jobs=2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * MIB


def naive(contents: list[bytes], piece_length: int, *, pad: bool) -> bytes:
    stream = b""
    filled = [c for c in contents if c]
    for data in filled[:-1]:
        stream += data + bytes(-len(data) % piece_length if pad else 0)
    stream += filled[-1] if filled else b""
    pieces = [stream[i : i + piece_length] for i in range(0, len(stream), piece_length)]
    return b"".join(hashlib.sha1(piece).digest() for piece in pieces)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 70), max_size=6), st.sampled_from([1, 8, 16, 64]), st.booleans(), st.integers(1, 3))
def test_pieces_are_those_of_the_whole_stream(
    tmp_path: Path, sizes: list[int], piece_length: int, pad: bool, jobs: int
) -> None:
    contents = [random.Random(i).randbytes(size) for i, size in enumerate(sizes)]
    files = []
    for number, data in enumerate(contents):
        path = tmp_path / str(number)
        path.write_bytes(data)
        files.append((len(data), path))
    assert v1_pieces(files, piece_length, pad=pad, jobs=jobs) == naive(contents, piece_length, pad=pad)


@pytest.mark.parametrize("mode", ["hybrid", "v1"])
def test_a_snapshot_can_be_hashed_both_ways(tmp_path: Path, mode: str) -> None:
    contents = {"a.bin": b"a" * (BLOCK + 3), "b.bin": b"", "c.bin": b"c" * 5}
    paths = []
    for file in snapshot_of(contents).manifest.files:
        path = tmp_path / file.path
        path.write_bytes(contents[file.path])
        paths.append((file, path))
    counted: list[int] = []
    found = hash_snapshot(paths, BLOCK, v1=mode, on_bytes=counted.append)  # type: ignore[arg-type]
    assert found.v1_pieces == naive(list(contents.values()), BLOCK, pad=mode == "hybrid")
    assert set(found.trees) == {"a.bin", "c.bin"}
    padding = BLOCK - 3 if mode == "hybrid" else 0
    assert sum(counted) == 2 * (BLOCK + 8) + padding


def test_a_file_that_shrinks_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(100))
    os.truncate(path, 50)
    with pytest.raises(IntegrityError, match="became shorter"):
        v1_pieces([(100, path)], 16, pad=False)
