"""Pauses between retries."""

from p2pmodel.core.backoff import Backoff, doubled


def test_pauses_double_up_to_the_bound() -> None:
    backoff = Backoff(1.0, 10.0)
    assert [backoff.failed() for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_a_success_starts_again() -> None:
    backoff = Backoff(1.0, 10.0)
    backoff.failed()
    backoff.failed()
    backoff.succeeded()
    assert backoff.failed() == 1.0


def test_many_and_negative_doublings_are_bounded() -> None:
    assert doubled(1.0, 10**9, 60.0) == 60.0
    assert doubled(0.25, -1, 4.0) == 0.25
