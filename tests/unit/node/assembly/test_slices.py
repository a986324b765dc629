"""Slices of files: only they are pulled, all received bytes are used, and an interrupted slice is resumed."""

import random
from pathlib import Path

import pytest

from p2pmodel.coordinator.assembly.partial_torrents import assembly_layout
from p2pmodel.core.content.layout import piece_length_for
from p2pmodel.node.assembly import slices
from p2pmodel.node.assembly.slice_download import roots_of, runs_of
from p2pmodel.node.assembly.slices import Slice, StagedFiles
from p2pmodel.node.snapshot.inventory import take_recorded_inventory
from p2pmodel.store.cache import HubCache
from tests.support.hub_snapshot import snapshot_of
from tests.support.stored import publish
from tests.support.torrent_files import trees_of

PIECE = piece_length_for(0)
CONTENTS = {
    "a.safetensors": random.Random(1).randbytes(3 * PIECE + 5),
    "b.safetensors": random.Random(2).randbytes(2 * PIECE),
    "small.json": b"{}",
}
SNAPSHOT = snapshot_of(CONTENTS)
MANIFEST = SNAPSHOT.manifest
LAYOUT = assembly_layout(MANIFEST)


def staged_files(cache: HubCache) -> StagedFiles:
    return StagedFiles(cache.repo(MANIFEST.repo).staged, MANIFEST, PIECE)


async def test_a_slice_lacks_only_its_own_bytes(tmp_path: Path) -> None:
    async with staged_files(HubCache(tmp_path)) as staged, staged.using(0) as partial:
        part = Slice(partial, MANIFEST.files[0], PIECE, 2 * PIECE)
        assert part.missing() == [(PIECE, PIECE)]
        data = CONTENTS["a.safetensors"]
        await part.write(PIECE, data[PIECE : PIECE + 100])
        assert part.missing() == [(PIECE + 100, PIECE - 100)]
        await part.write(PIECE + 100, data[PIECE + 100 : 2 * PIECE])
        assert part.missing() == []
        assert await part.digest() == MANIFEST.files[0].etag
        assert await part.read(PIECE, 3) == data[PIECE : PIECE + 3]
        await part.forget(PIECE, 10)
        assert part.missing() == [(PIECE, 10)]
        await part.discard()
        assert (part.size, part.missing()) == (len(data), [(PIECE, PIECE)])


async def test_a_file_is_opened_once_and_few_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "MOST_OPEN", 1)
    async with staged_files(HubCache(tmp_path)) as staged:
        async with staged.using(0) as first, staged.using(0) as again, staged.using(1):
            assert first is again
        with pytest.raises(ValueError, match="is closed"):
            await first.write(0, b"x")
        async with staged.using(0) as anew:
            await anew.write(0, b"x")


async def test_pulled_and_cached_pieces_are_restored_with_their_roots(tmp_path: Path) -> None:
    cache = HubCache(tmp_path)
    repo = cache.repo(MANIFEST.repo)
    publish(cache, SNAPSHOT, paths=["b.safetensors"], refs=())
    data = CONTENTS["a.safetensors"]
    async with staged_files(cache) as staged, staged.using(0) as partial:
        await partial.write(PIECE - 10, data[PIECE - 10 : 2 * PIECE + 10])
        await partial.write(3 * PIECE, data[3 * PIECE :])
    inventory = take_recorded_inventory(repo, MANIFEST, LAYOUT)
    assert (inventory.complete, inventory.have) == ({1}, {1, 3, 4, 5})
    trees = trees_of(CONTENTS, PIECE)
    for span in LAYOUT.spans:
        pieces = sorted(inventory.have.intersection(span.pieces))
        if pieces:
            expected = {piece: trees[span.path].piece_hash(piece - span.first_piece) for piece in pieces}
            assert roots_of(inventory.paths[span.index], LAYOUT, pieces) == expected


async def test_a_record_of_more_bytes_than_present_is_ignored(tmp_path: Path) -> None:
    cache = HubCache(tmp_path)
    async with staged_files(cache) as staged, staged.using(0) as partial:
        await partial.write(0, CONTENTS["a.safetensors"][: 2 * PIECE])
    path = cache.repo(MANIFEST.repo).staged.path_of(MANIFEST.files[0])
    path.write_bytes(b"short")
    assert take_recorded_inventory(cache.repo(MANIFEST.repo), MANIFEST, LAYOUT).have == frozenset()


def test_runs_hold_consecutive_pieces_of_one_file() -> None:
    assert list(runs_of(LAYOUT, [])) == []
    assert list(runs_of(LAYOUT, [0, 1, 3, 4, 5])) == [range(2), range(3, 4), range(4, 6)]
    assert list(runs_of(LAYOUT, range(LAYOUT.piece_count))) == [range(4), range(4, 6), range(6, 7)]
