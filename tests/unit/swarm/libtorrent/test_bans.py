"""Which of the banned peers count as guilty."""

from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.swarm.libtorrent.torrent_state import SHADOW_SECONDS, Bans


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_lone_ban_counts_and_is_reported_once() -> None:
    bans = Bans(Clock())
    assert bans.add("bad")
    assert not bans.add("bad")
    assert bans.addresses == {"bad"}


def test_a_ban_in_the_shadow_of_another_is_not_believed() -> None:
    bans = Bans(Clock())
    assert bans.add("bad")
    assert not bans.add("honest")
    assert bans.addresses == {"bad"}


def test_two_bans_far_apart_are_both_believed() -> None:
    clock = Clock()
    bans = Bans(clock)
    assert bans.add("one")
    clock.now += SHADOW_SECONDS + 1
    assert bans.add("two")
    assert bans.addresses == {"one", "two"}


def test_repeated_bans_outweigh_an_earlier_single_one() -> None:
    clock = Clock()
    bans = Bans(clock)
    assert bans.add("honest")
    assert not bans.add("bad")
    reported = []
    for _ in range(3):
        clock.now += SHADOW_SECONDS + 1
        reported.append(bans.add("bad"))
    assert reported.count(True) == 1
    assert bans.addresses == {"bad"}


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 10))))
def test_after_any_ban_an_address_is_blamed_and_it_was_banned(history: list[tuple[str, float]]) -> None:
    clock = Clock()
    bans = Bans(clock)
    for address, pause in history:
        clock.now += pause
        bans.add(address)
    assert bans.addresses <= {address for address, _ in history}
    assert bool(bans.addresses) == bool(history)
