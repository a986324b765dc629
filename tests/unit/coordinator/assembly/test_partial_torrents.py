"""Partial torrents: known roots are correct; each piece is in one of them or in the final torrent."""

from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.coordinator.assembly import partial_torrents
from p2pmodel.coordinator.assembly.assembly import Assembly
from p2pmodel.coordinator.assembly.partial_torrents import (
    MAX_PARTIAL_TORRENTS,
    MIN_BYTES,
    assembly_layout,
    partial_torrent_bytes,
    partial_trees,
    roots_in,
)
from p2pmodel.coordinator.leases.demand import Demand
from tests.support.torrent_files import manifest_of

SIZES = {"a.safetensors": 9 * (256 << 10) + 17, "b.json": 2, "c/d.safetensors": 3 * (256 << 10), "empty": 0}
MANIFEST = manifest_of({path: bytes(size) for path, size in SIZES.items()})
LAYOUT = assembly_layout(MANIFEST)
COUNT = LAYOUT.piece_count
NOTHING = Demand((1 << COUNT) - 1, from_seeders=False)


def root(piece: int) -> bytes:
    return bytes([piece + 1]) * 32


@given(st.sets(st.integers(0, COUNT - 1)))
def test_a_partial_torrent_has_the_roots_it_was_given_and_no_others(pieces: set[int]) -> None:
    roots = {piece: root(piece) for piece in pieces}
    trees = partial_trees(LAYOUT, roots)
    assert set(trees) == {path for path, size in SIZES.items() if size}
    assert roots_in(LAYOUT, trees) == roots


@given(st.integers(1, 1 << 45))
def test_there_are_few_partial_torrents_and_none_is_tiny(total: int) -> None:
    size = partial_torrent_bytes(total)
    assert size >= MIN_BYTES
    assert total // size <= MAX_PARTIAL_TORRENTS + 1


@given(st.permutations(range(COUNT)), st.integers(1, COUNT), st.integers(1, 4 << 20))
def test_no_piece_is_in_two_partial_torrents_and_few_are_in_none(order: list[int], step: int, least: int) -> None:
    assembly = Assembly(MANIFEST)
    roots: dict[int, bytes] = {}
    before, partial_torrents.MIN_BYTES = partial_torrents.MIN_BYTES, least
    try:
        due = partial_torrent_bytes(MANIFEST.total_size)
        for name in ("one", "other"):
            assembly.update(name, NOTHING, {}, 0.0)
        for start in range(0, COUNT, step):
            assembly.update("one", NOTHING, {piece: root(piece) for piece in order[start : start + step]}, 0.0)
            new = assembly.next_partial_torrent()
            assert not new.keys() & roots.keys()
            roots |= new
            mean = MANIFEST.total_size / COUNT
            rooted = COUNT - assembly.left
            assert (rooted - len(roots)) * mean < due or assembly.left * mean < due / 2
    finally:
        partial_torrents.MIN_BYTES = before
    assert roots.items() <= {piece: root(piece) for piece in order}.items()


def test_a_single_peer_makes_no_partial_torrent() -> None:
    assembly = Assembly(MANIFEST)
    assembly.update("one", NOTHING, {piece: root(piece) for piece in range(COUNT - 1)}, 0.0)
    assert assembly.next_partial_torrent() == {}
