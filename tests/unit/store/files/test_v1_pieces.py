"""SHA-1 pieces against hashing the whole stream at once."""

import hashlib
import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pmodel.core.content.layout import BLOCK
from p2pmodel.errors import IntegrityError
from p2pmodel.store.files.hashing import hash_snapshot
from p2pmodel.store.files.v1_pieces import v1_pieces
from tests.support.hub_snapshot import snapshot_of


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
