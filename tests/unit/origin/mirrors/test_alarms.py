from statistics import median_high, median_low

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.origin.mirrors.alarms import Alarm, Metric, Rule

INF = float("inf")


def rule(metric=Metric.LATENCY, limit=10.0, samples=3, max_age=1000.0):
    return Rule(metric, limit, samples, max_age)


def changes(alarm, *values, start=0.0):
    """The changes after values one second apart, as (index, raised, value, lasted)."""
    found = [(index, alarm.observe(value, start + index)) for index, value in enumerate(values)]
    return [(index, c.raised, c.value, c.lasted) for index, c in found if c]


def test_no_alarm_before_there_are_enough_samples():
    assert changes(Alarm(rule()), INF, INF) == []
    assert changes(Alarm(rule()), INF, INF, INF) == [(2, True, INF, 0.0)]


def test_one_slow_answer_is_no_alarm():
    assert changes(Alarm(rule()), 1, 1, 99, 1, 1, 99, 1) == []


def test_raised_once_and_recovered_once():
    assert changes(Alarm(rule()), 20, 20, 20, 30, 30, 5, 30, 5, 5, 5, 5) == [(2, True, 20, 0.0), (7, False, 5, 5.0)]


def test_the_limit_itself_is_fine():
    assert changes(Alarm(rule()), 10, 10, 10) == []
    assert changes(Alarm(rule(Metric.SPEED)), 10, 10, 10) == []


def test_speed_is_bad_when_low():
    assert changes(Alarm(rule(Metric.SPEED)), 9, 9, 9, 11, 11) == [(2, True, 9, 0.0), (4, False, 11, 2.0)]


def test_half_of_the_samples_is_no_majority():
    assert changes(Alarm(rule(samples=4)), 1, 99, 99, 1) == []
    assert changes(Alarm(rule(Metric.SPEED, samples=4)), 1, 99, 99, 1) == []


def test_old_samples_do_not_count_and_do_not_clear():
    alarm = Alarm(rule(max_age=5.0))
    assert changes(alarm, 99, 99, 99) == [(2, True, 99, 0.0)]
    assert changes(alarm, 1, 1, start=100) == []
    assert changes(alarm, 1, start=102) == [(0, False, 1, 100.0)]


@given(
    st.sampled_from(Metric),
    st.integers(1, 6),
    st.lists(st.tuples(st.floats(0, 20) | st.just(INF), st.floats(0, 4)), max_size=60),
)
def test_the_state_follows_the_median_of_fresh_samples(metric, samples, probes):
    watched = rule(metric, samples=samples, max_age=8.0)
    alarm, now, seen, state = Alarm(watched), 0.0, [], False
    raised_at = 0.0
    for value, pause in probes:
        now += pause
        seen.append((now, value))
        change = alarm.observe(value, now)
        fresh = [v for at, v in seen[-samples:] if now - at <= 8.0]
        middle = (median_low if metric is Metric.LATENCY else median_high)(fresh)
        expected = watched.broken(middle) if len(fresh) == samples else state
        assert (change is not None) == (expected != state)
        if change is not None:
            assert (change.raised, change.value, change.rule) == (expected, middle, watched)
            assert change.lasted == pytest.approx(0.0 if change.raised else now - raised_at)
            raised_at = now
        state = expected
        assert alarm.raised == state
