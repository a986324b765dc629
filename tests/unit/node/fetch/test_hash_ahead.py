"""Files are hashed while they are downloaded, as far as their pieces are complete in order."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from p2pmodel.node.fetch import publisher
from p2pmodel.node.fetch.publisher import HashAhead
from p2pmodel.node.snapshot.inventory import Inventory
from p2pmodel.swarm.torrents import build, layout_of, parse
from tests.support.eventually import PATIENCE
from tests.support.hub_snapshot import snapshot_of
from tests.support.torrent_files import trees_of

CONTENTS = {
    "config.json": b"{}",
    "model-1.safetensors": os.urandom(1_000_000),
    "model-2.safetensors": os.urandom(700_000),
}
SNAPSHOT = snapshot_of(CONTENTS)
LAYOUT = layout_of(SNAPSHOT.manifest)
TORRENT = parse(build(SNAPSHOT.manifest, trees_of(CONTENTS, LAYOUT.piece_length)))


class Desk:
    """Staged files, written piece by piece, and what hashes them."""

    def __init__(self, folder: Path, complete: frozenset[int] = frozenset()) -> None:
        self.paths = tuple(folder / f"{number}.part" for number in range(len(CONTENTS)))
        self.missing = set(range(LAYOUT.piece_count))
        self.ahead = HashAhead(TORRENT, Inventory(self.paths, complete, frozenset()), self.missing)

    def write(self, *pieces: int) -> None:
        for piece in pieces:
            place = LAYOUT.piece_range(piece)
            path = self.paths[place.span.index]
            with path.open("r+b" if path.exists() else "w+b") as staged:
                staged.seek(place.offset)
                staged.write(CONTENTS[place.span.path][place.offset : place.offset + place.length])

    def arrive(self, *pieces: int) -> None:
        self.write(*pieces)
        self.missing -= set(pieces)

    def hashed(self, index: int) -> int:
        return self.ahead._digests[index].hashed

    @asynccontextmanager
    async def running(self, files: frozenset[int] = frozenset({0, 1, 2})) -> AsyncIterator[None]:
        task = asyncio.create_task(self.ahead.run(files))
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "CHECK_LATE", 0.001)
    monkeypatch.setattr(publisher, "AHEAD_FROM", 1000)


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not met():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def pieces(index: int) -> range:
    return LAYOUT.spans[index].pieces


async def test_pieces_in_order_are_hashed_before_the_file_is_whole(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    first, second, *rest = pieces(1)
    async with desk.running():
        desk.arrive(first, second)
        await until(lambda: desk.hashed(1) == 2 * LAYOUT.piece_length)
        desk.arrive(*rest, *pieces(2))
        await until(lambda: desk.hashed(1) == LAYOUT.spans[1].size)
        assert await desk.ahead.digests([1, 2]) == [file.etag for file in SNAPSHOT.manifest.files[1:]]


async def test_written_pieces_are_not_hashed_before_verification(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    first, second, *_ = pieces(1)
    desk.write(first, second)
    desk.missing.discard(first)
    async with desk.running():
        await until(lambda: desk.hashed(1) == LAYOUT.piece_length)
        await asyncio.sleep(0.01)
        assert desk.hashed(1) == LAYOUT.piece_length


async def test_verified_pieces_are_not_hashed_before_they_are_written(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    first, *rest = pieces(1)
    desk.arrive(first)
    desk.missing -= set(rest)
    async with desk.running():
        await until(lambda: desk.hashed(1) == LAYOUT.piece_length)
        desk.write(*rest)
        await until(lambda: desk.hashed(1) == LAYOUT.spans[1].size)
    assert await desk.ahead.digests([1]) == [SNAPSHOT.manifest.files[1].etag]


async def test_small_whole_and_unwanted_files_are_not_looked_at(tmp_path: Path) -> None:
    desk = Desk(tmp_path, complete=frozenset({1}))
    desk.arrive(*pieces(0), *pieces(2))
    async with desk.running(frozenset({0, 1})):
        await asyncio.sleep(0.01)
        assert desk.hashed(0) == 0
        assert desk.hashed(2) == 0
    assert await desk.ahead.digests([0]) == [SNAPSHOT.manifest.files[0].etag]
