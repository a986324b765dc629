from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.domain.ranking import Choice, Health, choose

A, B = Health("a", 0), Health("b", 1)


def failed(health: Health, times: int, now: float = 0.0, *, dry: bool = True) -> tuple[Health, float]:
    """After `times` rounds of failure, each as soon as the backoff allows; and the time then."""
    for _ in range(times):
        now = max(now, health.ready_at)
        health = health.failed(now, dry=dry)
    return health, now


def test_priority_decides_among_the_healthy():
    assert choose([B, A], 0.0) == Choice("a", 0.0)


def test_nobody_is_left_when_all_are_excluded():
    assert choose([A, B], 0.0, excluded={"a", "b"}) is None
    assert choose([], 0.0) is None
    assert choose([A, B], 0.0, excluded={"a"}) == Choice("b", 0.0)


def test_a_suspect_comes_after_the_others():
    assert choose([A, B], 0.0, suspects={"a"}) == Choice("b", 0.0)
    assert choose([A, B], 0.0, suspects={"a", "b"}) == Choice("a", 0.0)


def test_a_failure_is_retried_on_the_same_mirror_after_a_backoff():
    a, now = failed(A, 1)
    assert choose([a, B], now) == Choice("a", 0.25)
    a, now = failed(A, 2)
    assert choose([a, B], now) == Choice("a", 0.5)


def test_the_third_failed_round_gives_the_turn_to_the_next():
    a, now = failed(A, 3)
    assert choose([a, B], now) == Choice("b", 0.0)
    assert choose([a], now) == Choice("a", 1.0), "alone, it is still asked"
    assert choose([a, B], now + 31) == Choice("a", 0.0), "its place comes back after a rest"


def test_rests_grow_until_it_answers():
    a, now = failed(A, 20)
    assert a.demoted(now + 299)
    assert not a.demoted(now + 301)
    assert a.succeeded() == A


def test_failures_side_by_side_are_one_round():
    a = A
    for number in range(8):
        a = a.failed(10.0 + number / 100, dry=True)
    assert a.rounds == 1
    assert a.ready_at == 10.25


def test_a_stall_costs_the_turn_at_once():
    assert choose([A.failed(0.0, dry=True, slow=True), B], 0.0) == Choice("b", 0.0)


def test_bytes_keep_the_backoff_short():
    a, now = failed(A, 12, dry=False)
    assert a.ready_at - now == 0.25
    assert a.demoted(now), "but a mirror that never finishes an answer loses its turn"


def test_retry_after_is_obeyed_and_the_next_mirror_fills_the_gap():
    a = A.failed(0.0, dry=True, wait=60.0)
    assert choose([a], 0.0) == Choice("a", 60.0)
    assert choose([a, B], 0.0) == Choice("b", 0.0)
    assert choose([a, B], 60.0) == Choice("a", 0.0)


def test_a_longer_retry_after_in_the_same_round_wins():
    a = A.failed(0.0, dry=True, wait=1.0).failed(0.5, dry=True, wait=30.0)
    assert a.rounds == 1
    assert choose([a], 1.0) == Choice("a", 29.5)


def test_among_the_demoted_the_first_to_be_ready_is_asked():
    a, b = A.failed(0.0, dry=True, wait=60.0), B.failed(0.0, dry=True, wait=20.0)
    assert choose([a, b], 0.0) == Choice("b", 20.0)


@given(st.lists(st.tuples(st.booleans(), st.none() | st.floats(0, 1000), st.booleans(), st.floats(0, 50)), max_size=30))
def test_waits_are_bounded_and_a_mirror_is_always_chosen(failures):
    health, now = A, 0.0
    for dry, wait, slow, later in failures:
        now += later
        health = health.failed(now, dry=dry, wait=wait, slow=slow)
    choice = choose([health], now)
    assert choice is not None
    assert 0 <= choice.wait <= max([4.0, *(w for _, w, _, _ in failures if w is not None)]) + 1e-6
