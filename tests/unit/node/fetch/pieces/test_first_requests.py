"""Places of unfinished files are requested before others: within a bound, and again after a failure."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from p2pmodel.core.content.layout import piece_length_for
from p2pmodel.core.content.request_window import FileRange, most_pieces
from p2pmodel.core.progress.views import FirstPiecesView
from p2pmodel.errors import InvalidInput
from p2pmodel.node.fetch.pieces.first_requests import FirstRequests
from p2pmodel.store.cache import HubCache
from p2pmodel.store.growing_file import GrowingFiles
from tests.support.hub_snapshot import HubSnapshot, snapshot_of

PIECE = piece_length_for(0)
SIZE = 40 * PIECE
MOST = most_pieces(2 * SIZE)


class Rig:
    """Two files that peers write, each piece of them missing until the test says otherwise."""

    def __init__(self, root: Path, snapshot: HubSnapshot) -> None:
        self.manifest = snapshot.manifest
        self.repo = HubCache(root).repo(self.manifest.repo)
        self.growing = GrowingFiles()
        self.requests = FirstRequests(self.growing)
        self.here: set[tuple[str, int]] = set()
        self.heard: list[tuple[str, int]] = []

    def write(self, path: str, stack: ExitStack, *, in_swarm: bool = True) -> None:
        file = self.manifest.file(path)
        assert file is not None

        def request(offset: int) -> bool:
            self.heard.append((path, offset))
            return (path, offset) not in self.here

        stack.enter_context(
            self.growing.file(self.repo, file).written(Path(path), lambda _offset: 0, request if in_swarm else None)
        )

    def ask(self, *places: FileRange) -> FirstPiecesView:
        return self.requests.request(self.repo, self.manifest, places)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path, snapshot_of({"a.safetensors": bytes(SIZE), "b.safetensors": bytes(SIZE - 1) + b"b"}))


def test_the_pieces_of_a_place_are_requested_in_its_order(rig: Rig) -> None:
    with ExitStack() as stack:
        rig.write("a.safetensors", stack)
        rig.write("b.safetensors", stack)
        found = rig.ask(FileRange("b.safetensors", PIECE + 5, 3 * PIECE + 1), FileRange("a.safetensors", 0, 1))
    assert found == FirstPiecesView(in_swarm=True, pieces=4)
    b = [("b.safetensors", number * PIECE) for number in (1, 2, 3)]
    assert rig.heard == [*b, ("a.safetensors", 0)]


def test_pieces_that_are_here_count_for_nothing(rig: Rig) -> None:
    rig.here |= {("a.safetensors", 0), ("a.safetensors", PIECE)}
    with ExitStack() as stack:
        rig.write("a.safetensors", stack)
        assert rig.ask(FileRange("a.safetensors", 0, 3 * PIECE)).pieces == 1
        rig.here.add(("a.safetensors", 2 * PIECE))
        assert rig.ask().pieces == 0


def test_no_more_than_a_window_comes_first_until_some_have_arrived(rig: Rig) -> None:
    with ExitStack() as stack:
        rig.write("a.safetensors", stack)
        rig.write("b.safetensors", stack)
        whole = FileRange("a.safetensors", 0, SIZE), FileRange("b.safetensors", 0, SIZE)
        assert rig.ask(*whole).pieces == MOST < 2 * SIZE // PIECE
        assert rig.ask(*reversed(whole)).pieces == MOST
        assert len(set(rig.heard)) == MOST, "nothing else became first"
        rig.here |= set(rig.heard[:3])
        assert rig.ask(*reversed(whole)).pieces == MOST
        assert len(set(rig.heard)) == MOST + 3


def test_requests_for_missing_pieces_are_repeated(rig: Rig) -> None:
    """An engine that restarted after a failure of the disk has forgotten them."""
    with ExitStack() as stack:
        rig.write("a.safetensors", stack)
        rig.ask(FileRange("a.safetensors", 0, 1))
        rig.heard.clear()
        rig.ask()
    assert rig.heard == [("a.safetensors", 0)]


def test_files_that_come_from_mirrors_take_no_requests(rig: Rig) -> None:
    with ExitStack() as stack:
        rig.write("a.safetensors", stack, in_swarm=False)
        assert rig.ask(FileRange("a.safetensors", 0, SIZE)) == FirstPiecesView(in_swarm=False, pieces=0)
    assert rig.ask(FileRange("b.safetensors", 0, SIZE)) == FirstPiecesView(in_swarm=False, pieces=0)


def test_what_was_requested_of_a_transfer_is_forgotten_with_it(rig: Rig) -> None:
    with ExitStack() as stack:
        rig.write("a.safetensors", stack)
        assert rig.ask(FileRange("a.safetensors", 0, SIZE)).pieces == MOST
    with ExitStack() as stack:
        rig.write("b.safetensors", stack)
        assert rig.ask(FileRange("b.safetensors", 0, PIECE)).pieces == 1


@pytest.mark.parametrize(
    "place", [FileRange("c.txt", 0, 1), FileRange("a.safetensors", 0, SIZE + 1), FileRange("a.safetensors", 2, 1)]
)
def test_a_place_outside_the_snapshot_is_refused(rig: Rig, place: FileRange) -> None:
    with pytest.raises(InvalidInput, match=f"{place.path} has no bytes {place.start} to {place.end}"):
        rig.ask(place)
