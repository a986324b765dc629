"""Complaints about peers: bounded, forgotten in time, and readable in a tracker's warning."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.coordinator.complaints import KEPT, MOST_PEERS, Complaints
from p2pmodel.coordinator.leases.demand import Complaint
from p2pmodel.coordinator.tracker.announce_texts import MOST_PIECES, pieces_in, warning_text

HASH = bytes(20)
HOST = bytes([10, 0, 0, 1])


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_accused_peer_of_that_torrent_alone_is_told() -> None:
    box = Complaints(Clock())
    for piece in (3, 3, 5):
        box.add(HASH, Complaint(piece, "10.0.0.1"))
    assert box.about(HASH, HOST) == (3, 5)
    assert box.about(HASH, bytes([10, 0, 0, 2])) == ()
    assert box.about(bytes([1] * 20), HOST) == ()


def test_complaints_are_forgotten() -> None:
    clock = Clock()
    box = Complaints(clock)
    box.add(HASH, Complaint(3, "10.0.0.1"))
    clock.now = KEPT + 1
    assert box.about(HASH, HOST) == ()


def test_liars_fill_no_memory() -> None:
    box = Complaints(Clock())
    for piece in range(2 * MOST_PIECES):
        box.add(HASH, Complaint(piece, "10.0.0.1"))
    assert len(box.about(HASH, HOST)) == MOST_PIECES
    for number in range(MOST_PEERS + 10):
        box.add(HASH, Complaint(0, f"10.1.{number // 256}.{number % 256}"))
    assert len(box._pieces) == MOST_PEERS


@pytest.mark.parametrize("peer", ["", "host.test", "10.0.0.1:6881", "\x00" * 99])
def test_a_peer_without_an_address_is_ignored(peer: str) -> None:
    box = Complaints(Clock())
    box.add(HASH, Complaint(1, peer))
    assert not box._pieces


def test_a_mapped_address_is_the_same_peer() -> None:
    box = Complaints(Clock())
    box.add(HASH, Complaint(1, "::ffff:10.0.0.1"))
    assert box.about(HASH, HOST) == (1,)


@given(st.lists(st.integers(0, 999_999_999), min_size=1, max_size=MOST_PIECES).map(tuple))
def test_a_warning_can_be_read(pieces: tuple[int, ...]) -> None:
    assert pieces_in(f"model (http://t/announce)[10.0.0.1] v2 warning: {warning_text(pieces)}") == pieces


@given(st.text())
def test_any_other_warning_names_no_piece(text: str) -> None:
    assert pieces_in(text) == ()
