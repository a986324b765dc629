"""The order of sources: swarm first, mirrors for orphans, disjoint slices for peers that lost the same seeder."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.node.fetch.pieces.orphan_strategy import LOOKED_AT, STUCK_FACTOR, OrphanPieces, OrphanRules

RULES = OrphanRules(grace=10.0, limit=4)
NONE: frozenset[int] = frozenset()
NO_RIVALS: frozenset[str] = frozenset()
RIPE = 20.0
"""When what was orphan at 9 seconds has been for long enough, and the swarm was not quiet for so long."""


def test_no_piece_is_pulled_during_the_grace():
    pulling = OrphanPieces(8, "a", RULES, now=0.0)
    assert pulling.choose(9.9, range(8), (), NO_RIVALS, NONE) == []
    assert len(pulling.choose(10.0, range(8), (), NO_RIVALS, NONE)) == RULES.limit


def test_without_missing_pieces_none_is_pulled():
    assert OrphanPieces(0, "a", RULES, now=0.0).choose(100.0, (), (), frozenset("b"), NONE) == []


def test_a_piece_that_a_peer_has_is_left_to_the_swarm():
    pulling = OrphanPieces(4, "a", RULES, now=0.0)
    pulling.choose(0.0, range(4), (1, 0, 1, 0), frozenset({"b"}), NONE)
    pulling.progressed(9.0)
    assert sorted(pulling.choose(12.0, range(4), (1, 0, 1, 0), frozenset({"b"}), NONE)) == [1, 3]


def test_the_grace_starts_again_when_a_piece_is_lost_by_the_swarm():
    pulling = OrphanPieces(2, "a", RULES, now=0.0)
    pulling.choose(20.0, range(2), (1, 1), frozenset({"b"}), NONE)
    pulling.progressed(24.0)
    assert pulling.choose(25.0, range(2), (0, 1), frozenset({"b"}), NONE) == []
    assert pulling.choose(34.9, range(2), (0, 1), frozenset({"b"}), NONE) == []
    assert pulling.choose(35.0, range(2), (0, 1), frozenset({"b"}), NONE) == [0]


def test_the_wait_for_a_stalled_swarm_is_bounded():
    pulling = OrphanPieces(2, "a", RULES, now=0.0)
    assert pulling.choose(1.0, range(2), (3, 3), frozenset({"b"}), NONE) == []
    assert len(pulling.choose(1.0, range(2), (3, 3), frozenset({"b"}), NONE, silent=True)) == 2
    assert len(pulling.choose(RULES.grace * STUCK_FACTOR, range(2), (3, 3), frozenset({"b"}), NONE)) == 2


def test_pieces_in_flight_count_against_the_limit_and_are_not_requested_twice():
    pulling = OrphanPieces(8, "a", RULES, now=0.0)
    first = pulling.choose(10.0, range(8), (), NO_RIVALS, NONE)
    assert pulling.choose(11.0, range(8), (), NO_RIVALS, frozenset(first)) == []
    more = pulling.choose(11.0, range(8), (), NO_RIVALS, frozenset(first[:1]))
    assert len(more) == 3
    assert first[0] not in more


def test_a_pull_is_needless_once_the_piece_is_here_or_at_a_peer():
    pulling = OrphanPieces(4, "a", RULES, now=0.0)
    assert pulling.needless({0, 1, 2}, (), [0, 3]) == [3]
    assert pulling.needless({0, 1, 2}, (0, 1, 0, 1), [0, 1, 3]) == [1, 3]


def test_no_pull_is_needless_while_the_peers_with_the_piece_stall():
    pulling = OrphanPieces(4, "a", RULES, now=0.0)
    assert pulling.needless({0, 1, 2}, (1, 1, 1, 1), [0, 1, 3], silent=True) == [3]


def test_peers_that_lack_the_same_pieces_share_the_limit():
    pulling = OrphanPieces(8, "a", RULES, now=0.0)
    pulling.progressed(9.0)
    others = [frozenset(map(str, range(count))) for count in (0, 1, 50)]
    alone, one_other, many = (len(pulling.choose(12.0, range(8), (0,) * 8, each, NONE)) for each in others)
    assert (alone, one_other, many) == (4, 2, 1)


def met(identity: str, count: int, rivals: frozenset[str]) -> OrphanPieces:
    """A strategy with orphans known since 9 s, and a piece received at 19 s."""
    pulling = OrphanPieces(count, identity, RULES, now=0.0)
    pulling.choose(9.0, range(count), (0,) * count, rivals, NONE)
    pulling.progressed(19.0)
    return pulling


def owned(identity: str, count: int, rivals: frozenset[str]) -> set[int]:
    """The pieces that it would pull even as the only missing piece."""
    pulling, nowhere = met(identity, count, rivals), (0,) * count
    return {p for p in range(count) if pulling.choose(RIPE, {p}, nowhere, rivals, NONE, at_once=True)}


def test_each_piece_belongs_to_one_of_the_connected_peers() -> None:
    count, names = 300, frozenset("abc")
    shares = {name: owned(name, count, names - {name}) for name in names}
    assert sorted(piece for share in shares.values() for piece in share) == list(range(count))
    assert all(0.25 * count < len(share) < 0.42 * count for share in shares.values())


def test_a_change_of_one_peer_reassigns_only_its_own_pieces() -> None:
    alike = owned("a", 200, frozenset("bc")) ^ owned("a", 200, frozenset("b"))
    assert alike == owned("c", 200, frozenset("ab")) & owned("a", 200, frozenset("b"))


@pytest.mark.parametrize("pace", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 40, 1000])
def test_a_finished_peer_helps_the_other_until_the_last_pieces(count: int, pace: int) -> None:
    """Two peers: one pulls two pieces while the other pulls `pace`."""
    a, b = (met(name, count, frozenset("ab") - {name}) for name in "ab")
    missing, pulled, nowhere = set(range(count)), 0, (0,) * count
    while missing:
        chosen = a.choose(RIPE, missing, nowhere, frozenset("b"), NONE)
        theirs = b.choose(RIPE, missing, nowhere, frozenset("a"), NONE)[:pace]
        assert chosen or theirs
        pulled += len(chosen) + len(theirs)
        missing -= {*chosen, *theirs}
    assert pulled <= count + 2


def test_help_begins_where_the_owner_comes_last() -> None:
    count, nowhere = 100, (0,) * 100
    left = owned("b", count, frozenset("a"))
    helper, owner, in_turn = met("a", count, frozenset("b")), met("b", count, frozenset("a")), []
    helped = helper.choose(RIPE, left, nowhere, frozenset("b"), NONE)
    while left:
        in_turn += owner.choose(RIPE, left, nowhere, frozenset("a"), NONE)
        left -= set(in_turn)
    assert helped == in_turn[: -len(helped) - 1 : -1]


def test_pieces_of_an_owner_are_left_to_it_until_the_swarm_is_quiet() -> None:
    count, rivals = 40, frozenset("b")
    theirs = sorted(owned("b", count, frozenset("a")))[:2]
    pulling = met("a", count, rivals)
    assert pulling.choose(RIPE, theirs, (0,) * count, rivals, NONE) == []
    pulling.progressed(RIPE)
    assert pulling.choose(RIPE + RULES.grace - 0.1, theirs, (0,) * count, rivals, NONE) == []
    assert sorted(pulling.choose(RIPE + RULES.grace, theirs, (0,) * count, rivals, NONE)) == theirs


def test_much_of_what_is_others_is_looked_at_in_part() -> None:
    count, rivals = 4 * LOOKED_AT, frozenset("b")
    pulling = met("a", count, rivals)
    theirs = sorted(owned("b", count, frozenset("a")))
    assert len(theirs) > LOOKED_AT
    chosen = pulling.choose(RIPE, theirs, (0,) * count, rivals, NONE)
    assert chosen
    assert set(chosen) <= set(theirs[-LOOKED_AT:])


@given(st.integers(1, 200), st.text(max_size=20), st.frozensets(st.text(max_size=3), max_size=4))
def test_every_missing_piece_is_chosen_in_the_end(count: int, identity: str, others: frozenset[str]):
    pulling = OrphanPieces(count, identity, RULES, now=0.0)
    missing = set(range(count))
    for _ in range(count):
        chosen = pulling.choose(100.0, missing, (), others - {identity}, NONE)
        assert chosen
        missing -= set(chosen)
        if not missing:
            break
    assert not missing


@pytest.mark.parametrize("rest", [range(1000), range(900, 1000)], ids=["all", "the same end"])
def test_unconnected_peers_start_at_different_pieces(rest: range):
    """Leases are in order: after the loss of the coordinator all peers lack the same end of the snapshot."""
    begin = {
        OrphanPieces(1000, name, RULES, now=0.0).choose(10.0, rest, (), NO_RIVALS, NONE)[0]
        for name in map(str, range(20))
    }
    assert len(begin) > 15
    assert begin <= set(rest)
