"""The record of blocks beside a staged file."""

import random
from pathlib import Path

from p2pmodel.core.content.layout import BLOCK
from p2pmodel.core.content.merkle import leaves
from p2pmodel.store.files.leaf_record import LeafRecord, leaves_path

DATA = random.Random(5).randbytes(10 * BLOCK - 3)
LEAVES = leaves(DATA)
ROOT = bytes([7]) * 32


def recorded(path: Path, *blocks: int) -> LeafRecord:
    record = LeafRecord(path, ROOT)
    for block in blocks:
        record.write(block * BLOCK, DATA[block * BLOCK : (block + 1) * BLOCK], {block: LEAVES[block]})
    return record


def test_written_blocks_are_known_to_the_next_one(tmp_path: Path) -> None:
    recorded(tmp_path / "x.part", 2, 9)
    record = LeafRecord(tmp_path / "x.part", ROOT)
    assert record.known(0, 10) == [LEAVES[block] if block in (2, 9) else None for block in range(10)]
    assert record.lacking(0, len(DATA), ((1, 4), (8, 10))) == ((1, 2), (3, 4), (8, 9))
    assert record.lacking(8, len(DATA), ((0, 2),)) == ((0, 1),)


def test_nothing_is_known_without_a_record_or_a_file(tmp_path: Path) -> None:
    record = LeafRecord(tmp_path / "x.part", ROOT)
    assert record.known(3, 2) == [None, None]
    assert record.lacking(0, len(DATA), ((0, 2),)) == ((0, 2),)
    assert not record.partial(2, 5, 10)
    recorded(tmp_path / "x.part", 0)
    (tmp_path / "x.part").unlink()
    assert record.lacking(0, len(DATA), ((0, 2),)) == ((0, 2),)


def test_a_block_that_is_not_what_its_hash_says_is_lacking(tmp_path: Path) -> None:
    path = tmp_path / "x.part"
    record = recorded(path, 1, 2)
    data = bytearray(path.read_bytes())
    data[2 * BLOCK] ^= 1
    path.write_bytes(data)
    assert record.lacking(0, len(DATA), ((1, 3),)) == ((2, 3),)


def test_a_torn_record_is_of_no_use_and_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "x.part"
    record = recorded(path, 1, 2)
    leaves_path(path).write_bytes(leaves_path(path).read_bytes()[: 32 * 3 + 5])
    assert record.known(0, 4) == [None, LEAVES[1], None, None]
    leaves_path(path).write_bytes(b"torn")
    assert record.known(0, 4) == [None] * 4
    record = recorded(path, 3)
    assert record.known(0, 4) == [None, None, None, LEAVES[3]]


def test_pieces_with_some_of_their_blocks_are_partial(tmp_path: Path) -> None:
    record = recorded(tmp_path / "x.part", 0, 1, 2, 3, 5, 8, 9)
    assert record.partial(3, 4, 10) == {1}
