"""The order of sources: swarm first, mirrors for orphans, disjoint slices for peers that lost the same seeder."""

from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.domain.pulling import STUCK_FACTOR, Pulling, PullingRules

RULES = PullingRules(grace=10.0, limit=4)
NONE: frozenset[int] = frozenset()


def test_nothing_is_pulled_before_the_grace_is_over():
    pulling = Pulling(8, "a", RULES, now=0.0)
    assert pulling.choose(9.9, range(8), (), 0, NONE) == []
    assert len(pulling.choose(10.0, range(8), (), 0, NONE)) == RULES.limit


def test_a_piece_that_a_peer_has_is_left_to_the_swarm():
    pulling = Pulling(4, "a", RULES, now=0.0)
    pulling.choose(0.0, range(4), (1, 0, 1, 0), 1, NONE)
    pulling.progressed(9.0)
    assert sorted(pulling.choose(12.0, range(4), (1, 0, 1, 0), 1, NONE)) == [1, 3]


def test_the_grace_starts_again_when_a_piece_is_lost_by_the_swarm():
    pulling = Pulling(2, "a", RULES, now=0.0)
    pulling.choose(20.0, range(2), (1, 1), 1, NONE)
    pulling.progressed(24.0)
    assert pulling.choose(25.0, range(2), (0, 1), 1, NONE) == []
    assert pulling.choose(34.9, range(2), (0, 1), 1, NONE) == []
    assert pulling.choose(35.0, range(2), (0, 1), 1, NONE) == [0]


def test_a_swarm_that_delivers_nothing_is_not_waited_for_for_ever():
    pulling = Pulling(2, "a", RULES, now=0.0)
    assert pulling.choose(RULES.grace * STUCK_FACTOR - 0.1, range(2), (3, 3), 3, NONE) == []
    assert len(pulling.choose(RULES.grace * STUCK_FACTOR, range(2), (3, 3), 3, NONE)) == 2


def test_in_flight_pieces_count_against_the_limit_and_are_not_asked_twice():
    pulling = Pulling(8, "a", RULES, now=0.0)
    first = pulling.choose(10.0, range(8), (), 0, NONE)
    assert pulling.choose(11.0, range(8), (), 0, frozenset(first)) == []
    more = pulling.choose(11.0, range(8), (), 0, frozenset(first[:1]))
    assert len(more) == 3
    assert first[0] not in more


def test_a_pull_is_needless_once_the_piece_is_here_or_at_a_peer():
    pulling = Pulling(4, "a", RULES, now=0.0)
    assert pulling.needless(1.0, {0, 1, 2}, (), [0, 3]) == [3]
    assert pulling.needless(1.0, {0, 1, 2}, (0, 1, 0, 1), [0, 1, 3]) == [1, 3]


def test_no_pull_is_needless_while_the_peers_that_have_the_piece_deliver_nothing():
    pulling = Pulling(4, "a", RULES, now=0.0)
    assert pulling.needless(RULES.grace * STUCK_FACTOR, {0, 1, 2}, (1, 1, 1, 1), [0, 1, 3]) == [3]


def test_peers_that_lack_the_same_pieces_share_the_limit():
    pulling = Pulling(8, "a", RULES, now=0.0)
    pulling.progressed(9.0)
    alone, one_other, many = (len(pulling.choose(12.0, range(8), (0,) * 8, peers, NONE)) for peers in (0, 1, 50))
    assert (alone, one_other, many) == (4, 2, 1)


@given(st.integers(1, 200), st.text(max_size=20))
def test_every_missing_piece_is_chosen_in_the_end(count: int, identity: str):
    pulling = Pulling(count, identity, RULES, now=0.0)
    missing = set(range(count))
    for _ in range(count):
        chosen = pulling.choose(100.0, missing, (), 0, NONE)
        assert chosen
        missing -= set(chosen)
        if not missing:
            break
    assert not missing


def test_peers_begin_at_different_places():
    starts = {Pulling(1000, f"127.0.0.{n}:1", RULES, 0.0).choose(10.0, range(1000), (), 0, NONE)[0] for n in range(20)}
    assert len(starts) > 15


def test_peers_that_lack_the_same_end_do_not_all_begin_with_its_first_piece():
    """Leases are taken in order: whoever loses the coordinator lacks what all others lack, the end of the snapshot."""
    rest = range(900, 1000)
    begin = {Pulling(1000, name, RULES, now=0.0).choose(10.0, rest, (), 0, NONE)[0] for name in map(str, range(20))}
    assert len(begin) >= 10
    assert begin <= set(rest)
