"""Disputes between mirrors and torrents: when one is judged."""

from p2pmodel.node.fetch.disputes import JUDGE_AFTER, JUDGE_AT_LAST, Disputes


def test_a_file_is_judged_once_nothing_of_it_comes() -> None:
    disputes = Disputes()
    assert disputes.due([3], [], 100) is None
    assert disputes.due([3], [], 100 + JUDGE_AFTER / 2) is None
    assert disputes.due([3], [], 100 + JUDGE_AFTER) == 3


def test_a_piece_from_anywhere_defers_it() -> None:
    disputes = Disputes()
    disputes.due([3], [], 100)
    disputes.arrived(3)
    assert disputes.due([3], [], 100 + JUDGE_AFTER) is None
    assert disputes.due([3], [], 100 + 2 * JUDGE_AFTER) == 3


def test_requests_in_flight_are_waited_for_but_not_for_ever() -> None:
    disputes = Disputes()
    disputes.due([3], [3], 100)
    assert disputes.due([3], [3], 100 + JUDGE_AFTER) is None
    assert disputes.due([3], [3], 100 + JUDGE_AT_LAST) == 3


def test_a_file_is_judged_once_only() -> None:
    disputes = Disputes(frozenset([3]))
    disputes.due([3, 4], [], 100)
    assert disputes.due([3], [], 100 + JUDGE_AT_LAST) is None
    assert disputes.due([3, 4], [], 100 + JUDGE_AT_LAST) == 4
