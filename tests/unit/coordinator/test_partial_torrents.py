"""Chapters: true in what is known, and in nothing else; all of a snapshot is in some chapter or in what comes last."""

from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.coordinator import partial_torrents
from p2pmodel.coordinator.assembly import Assembly, birth_layout
from p2pmodel.coordinator.leases import Demand
from p2pmodel.coordinator.partial_torrents import CHAPTERS, LEAST_BYTES, chapter_bytes, chapter_trees, roots_in
from tests.support.torrent_files import manifest_of

SIZES = {"a.safetensors": 9 * (256 << 10) + 17, "b.json": 2, "c/d.safetensors": 3 * (256 << 10), "empty": 0}
MANIFEST = manifest_of({path: bytes(size) for path, size in SIZES.items()})
LAYOUT = birth_layout(MANIFEST)
COUNT = LAYOUT.piece_count
NOTHING = Demand((1 << COUNT) - 1, near=False)


def root(piece: int) -> bytes:
    return bytes([piece + 1]) * 32


@given(st.sets(st.integers(0, COUNT - 1)))
def test_a_chapter_says_what_it_was_told_and_no_more(pieces: set[int]) -> None:
    told = {piece: root(piece) for piece in pieces}
    trees = chapter_trees(LAYOUT, told)
    assert set(trees) == {path for path, size in SIZES.items() if size}
    assert roots_in(LAYOUT, trees) == told


@given(st.integers(1, 1 << 45))
def test_there_are_few_chapters_and_none_is_tiny(total: int) -> None:
    size = chapter_bytes(total)
    assert size >= LEAST_BYTES
    assert total // size <= CHAPTERS + 1


@given(st.permutations(range(COUNT)), st.integers(1, COUNT), st.integers(1, 4 << 20))
def test_no_piece_is_in_two_chapters_and_few_are_in_none(order: list[int], step: int, least: int) -> None:
    birth = Assembly(MANIFEST)
    told: dict[int, bytes] = {}
    before, partial_torrents.LEAST_BYTES = partial_torrents.LEAST_BYTES, least
    try:
        due = chapter_bytes(MANIFEST.total_size)
        for name in ("one", "other"):
            birth.tell(name, NOTHING, {}, 0.0)
        for start in range(0, COUNT, step):
            birth.tell("one", NOTHING, {piece: root(piece) for piece in order[start : start + step]}, 0.0)
            new = birth.next_chapter()
            assert not new.keys() & told.keys()
            told |= new
            mean = MANIFEST.total_size / COUNT
            rooted = COUNT - birth.left
            assert (rooted - len(told)) * mean < due or birth.left * mean < due / 2
    finally:
        partial_torrents.LEAST_BYTES = before
    assert told.items() <= {piece: root(piece) for piece in order}.items()


def test_who_is_alone_has_nobody_to_exchange_with() -> None:
    birth = Assembly(MANIFEST)
    birth.tell("one", NOTHING, {piece: root(piece) for piece in range(COUNT - 1)}, 0.0)
    assert birth.next_chapter() == {}
