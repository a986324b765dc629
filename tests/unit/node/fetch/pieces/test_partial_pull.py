"""Pieces of which older revisions have a part: only the other bytes are requested, and the tree has the last word."""

from collections.abc import Callable
from pathlib import Path

from p2pmodel.core.content.layout import BLOCK
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.node.fetch.pieces.partial_pull import PartialPull
from tests.support.shards import random_tensors, shard
from tests.support.updates import PIECE, Update

OLD = random_tensors(8, PIECE + 40_000)
OTHER = random_tensors(8, PIECE + 40_000, seed=2)
CHANGED = "layer.3.weight"


class Source:
    """Sends the bytes of the new file; `asked` has the ranges."""

    def __init__(self, new: bytes) -> None:
        self._new = new
        self.asked: list[tuple[int, int]] = []

    async def read(
        self,
        manifest: Manifest,
        file: ManifestFile,
        offset: int,
        length: int,
        *,
        accept: Callable[[bytes], bool] | None,
    ) -> bytes:
        self.asked.append((offset, offset + length))
        return self._new[offset : offset + length]

    @property
    def sent(self) -> int:
        return sum(end - start for start, end in self.asked)


async def pulled(update: Update, source: Source, piece: int) -> bytes | None:
    """The piece of the file, counted from 0, in parts; None if it must be pulled as a whole."""
    parts = update.parts(update.take())
    done = await PartialPull(update.swarm.metainfo, parts).pull(source, update.span.first_piece + piece)
    if done is None:
        return None
    data, spared = done
    assert data == update.new[piece * PIECE : piece * PIECE + len(data)]
    assert spared == len(data) - source.sent
    return data


async def test_of_a_piece_at_the_edge_of_a_changed_tensor_its_bytes_alone_are_requested(tmp_path: Path):
    new = shard(OLD | {CHANGED: OTHER[CHANGED]})
    update, source = Update(tmp_path, shard(OLD), new), Source(new)
    first, *_, last = sorted(update.missing())
    start = new.index(OTHER[CHANGED])
    assert await pulled(update, source, first) is not None
    assert source.asked == [(start, (first + 1) * PIECE)]
    source.asked.clear()
    assert await pulled(update, source, last) is not None
    assert source.asked == [(last * PIECE, start + len(OTHER[CHANGED]))]


async def test_a_longer_header_alone_is_requested(tmp_path: Path):
    new = shard(OLD, {"license": "apache-2.0"})
    update, source = Update(tmp_path, shard(OLD), new), Source(new)
    assert update.missing() == {0}
    assert await pulled(update, source, 0) is not None
    assert source.sent < 2 * BLOCK


async def test_a_wrong_presumption_leaves_the_piece_to_a_whole_pull(tmp_path: Path):
    """The front of the tensor is the same, and the rest is not: its part of the next piece is presumed wrongly."""
    half = OLD[CHANGED][: PIECE // 2] + OTHER[CHANGED][PIECE // 2 :]
    new = shard(OLD | {CHANGED: half, "layer.4.weight": OTHER["layer.4.weight"]})
    update, source = Update(tmp_path, shard(OLD), new), Source(new)
    first, *inner, last = sorted(update.missing())
    assert await pulled(update, source, last) is not None
    assert [await pulled(update, source, piece) for piece in (first, *inner)] == [None] * (1 + len(inner))


async def test_a_tensor_without_a_right_piece_beside_is_not_presumed(tmp_path: Path):
    new = shard(OTHER)
    update, source = Update(tmp_path, shard(OLD), new), Source(new)
    update.stage(0, 1)
    assert await pulled(update, source, 2) is None
    assert source.asked == []


async def test_without_older_revisions_nothing_is_requested(tmp_path: Path):
    update, source = Update(tmp_path, shard(OLD), shard(OTHER)), Source(b"")
    assert await PartialPull(update.swarm.metainfo, None).pull(source, 0) is None
    assert source.asked == []
