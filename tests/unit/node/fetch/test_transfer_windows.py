"""What others may read of a transfer's files while they arrive, and when they may no longer."""

from pathlib import Path

import pytest

from p2pmodel.core.layout import piece_length_for
from p2pmodel.node.fetch.transfer_windows import TransferWindows
from p2pmodel.node.snapshot.file_windows import HOLD_BACK, FileWindow, FileWindows, Key
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_swarm import Swarm

PIECE = piece_length_for(0)
SIZE = HOLD_BACK + 20 * PIECE
FILES = {"a.bin": bytes(SIZE), "b.bin": bytes(1 + SIZE)}


class Rig:
    """A transfer's files, of which pieces become durable as the test says."""

    def __init__(self, root: Path) -> None:
        swarm = Swarm(root, snapshot_of(FILES))
        self.metainfo = swarm.metainfo
        self.durable: set[int] = set()
        self.waited_for: list[int] = []
        self.arriving = FileWindows()
        repo = swarm.cache().repo(swarm.metainfo.manifest.repo)
        repo.folder.mkdir(parents=True)
        self.showing = TransferWindows(
            self.metainfo, repo, self.arriving, durable=lambda: self.durable, waited_for=self.waited_for.append
        )
        self.paths = [root / file.path for file in self.metainfo.manifest.files]

    def window(self, index: int) -> FileWindow | None:
        return self.arriving.window(self.key(index))

    def key(self, index: int) -> Key:
        manifest = self.metainfo.manifest
        return manifest.repo, manifest.files[index].etag

    def first_piece(self, index: int) -> int:
        return self.metainfo.layout.spans[index].first_piece


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


async def test_what_is_durable_without_a_gap_may_be_read(rig: Rig) -> None:
    first = rig.first_piece(1)
    rig.durable |= {first, first + 1, first + 3}
    with rig.showing.shown({1}, rig.paths):
        window = rig.window(1)
        assert window is not None
        assert window.path == rig.paths[1]
        assert window.shown(0, SIZE + 1) == window.shown(PIECE + 5, SIZE + 1) == 2 * PIECE
        assert window.shown(2 * PIECE, SIZE + 1) == 2 * PIECE
        assert window.shown(3 * PIECE, SIZE + 1) == 4 * PIECE
        assert rig.window(0) is None
    assert rig.window(1) is None


async def test_a_piece_of_the_file_before_is_none_of_this_one(rig: Rig) -> None:
    last = rig.first_piece(1) - 1
    rig.durable |= {last, last + 1}
    with rig.showing.shown({0}, rig.paths):
        window = rig.window(0)
        assert window is not None
        begin = (last - rig.first_piece(0)) * PIECE
        assert window._available(begin) == SIZE


async def test_who_waits_for_a_byte_waits_for_its_piece(rig: Rig) -> None:
    with rig.showing.shown({0, 1}, rig.paths):
        window = rig.window(1)
        assert window is not None
        window.waited_for(2 * PIECE - 1)
        window.waited_for(2 * PIECE)
    assert rig.waited_for == [rig.first_piece(1) + 1, rig.first_piece(1) + 2]


async def test_a_damaged_file_is_closed_to_those_who_saw_it_and_no_other_is(rig: Rig) -> None:
    with rig.showing.shown({0, 1}, rig.paths):
        seen, other = rig.window(0), rig.window(1)
        await rig.showing.damaged(0)
        assert seen is not None
        assert seen.wrong
        assert rig.window(0) is not seen
        assert rig.window(1) is other


async def test_a_wrong_torrent_is_believed_only_where_a_hash_of_the_hub_vouches(rig: Rig) -> None:
    with rig.showing.shown({0, 1}, rig.paths):
        right, doubtful = rig.window(0), rig.window(1)
        rig.showing.verified(0)
        await rig.showing.doubted()
        assert right is not None
        assert doubtful is not None
        assert (right.verified, right.wrong) == (True, False)
        assert (doubtful.verified, doubtful.wrong) == (False, True)
