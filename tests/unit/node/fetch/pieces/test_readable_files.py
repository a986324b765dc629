"""Files of a transfer that clients read while it runs, and when they no longer may."""

from pathlib import Path

import pytest

from p2pmodel.core.content.layout import piece_length_for
from p2pmodel.errors import Unavailable
from p2pmodel.node.fetch.pieces.readable_files import ReadableFiles
from p2pmodel.store.growing_file import HOLD_BACK, GrowingFile, GrowingFileReader, GrowingFiles
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_swarm import Swarm

PIECE = piece_length_for(0)
SIZE = HOLD_BACK + 20 * PIECE
FILES = {"a.bin": bytes(SIZE), "b.bin": bytes(1 + SIZE), "same.bin": bytes(SIZE)}


class Rig:
    """A transfer's files, with durable pieces set by the test."""

    def __init__(self, root: Path) -> None:
        swarm = Swarm(root, snapshot_of(FILES))
        self.metainfo = swarm.metainfo
        self.durable: set[int] = set()
        self.requested: list[int] = []
        self.growing = GrowingFiles()
        self.repo = swarm.cache().repo(swarm.metainfo.manifest.repo)
        self.repo.folder.mkdir(parents=True)
        self.readable = ReadableFiles(
            self.metainfo, self.repo, self.growing, durable=lambda: self.durable, request=self.requested.append
        )
        self.paths = [root / file.path for file in self.metainfo.manifest.files]
        for path in self.paths:
            path.touch()

    def file(self, index: int) -> GrowingFile:
        return self.growing.file(self.repo, self.metainfo.manifest.files[index])

    async def reader(self, index: int) -> GrowingFileReader:
        return await self.file(index).open()

    def first_piece(self, index: int) -> int:
        return self.metainfo.layout.spans[index].first_piece


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


async def test_durable_bytes_without_a_gap_may_be_read(rig: Rig) -> None:
    first = rig.first_piece(1)
    rig.durable |= {first, first + 1, first + 3}
    with rig.readable.written({1}, rig.paths), await rig.reader(1) as reader:
        assert reader.file.name == str(rig.paths[1])
        assert reader.available(0) == reader.available(PIECE + 5) == 2 * PIECE
        assert reader.available(2 * PIECE) == 2 * PIECE
        assert reader.available(3 * PIECE) == 4 * PIECE


async def test_a_piece_of_the_file_before_is_none_of_this_one(rig: Rig) -> None:
    last = rig.first_piece(1) - 1
    rig.durable |= {last, last + 1}
    with rig.readable.written({0}, rig.paths):
        begin = (last - rig.first_piece(0)) * PIECE
        assert rig.readable._available(rig.metainfo.layout.spans[0], begin) == SIZE


async def test_a_reader_that_waits_for_a_byte_requests_its_piece(rig: Rig) -> None:
    first = rig.first_piece(1)
    with rig.readable.written({0, 1}, rig.paths), await rig.reader(1) as reader:
        for offset in (2 * PIECE - 1, 2 * PIECE):
            rig.durable.clear()
            rig.requested.clear()
            rig.readable._request = lambda piece: (rig.requested.append(piece), rig.durable.add(piece))
            assert await reader.ready(offset) > offset
            assert rig.requested == [first + offset // PIECE]


async def test_corruption_ends_the_readers_of_that_file_only(rig: Rig) -> None:
    with (
        rig.readable.written({0, 1}, rig.paths),
        await rig.reader(0) as ended,
        await rig.reader(1) as other,
    ):
        await rig.readable.corrupt(0)
        with pytest.raises(Unavailable, match="wrong bytes"):
            ended.available(0)
        assert rig.repo.recently_corrupt(rig.metainfo.manifest.files[0])
        with await rig.reader(0) as later:
            assert later.available(0) == 0
        assert other.available(0) == 0


async def test_with_a_wrong_torrent_only_bytes_confirmed_by_the_hub_hash_are_readable(rig: Rig) -> None:
    with (
        rig.readable.written({0, 1}, rig.paths),
        await rig.reader(0) as right,
        await rig.reader(1) as doubtful,
    ):
        rig.readable.verified(0)
        await rig.readable.corrupt_unverified()
        assert right.available(0) == SIZE
        with pytest.raises(Unavailable, match="wrong bytes"):
            doubtful.available(0)


async def test_equal_contents_are_verified_each_for_itself(rig: Rig) -> None:
    """Files with one etag grow at different paths: the hash of one does not verify the bytes of the other."""
    with rig.readable.written({0, 2}, rig.paths), await rig.reader(2) as reader:
        assert reader.file.name == str(rig.paths[0])
        rig.readable.verified(2)
        assert reader.available(0) == 0
        rig.readable.verified(0)
        assert reader.available(0) == SIZE
