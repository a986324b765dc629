import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.origin.mirrors.throughput import BenchRun, percentile, summarize, window_rates

seconds = st.floats(0.01, 50)
runs = st.builds(
    BenchRun,
    size=st.integers(1, 10**9),
    seconds=st.none() | seconds,
    connect=st.none() | seconds,
    first_byte=st.none() | seconds,
    rates=st.lists(st.floats(0, 1e9), max_size=5).map(tuple),
    retried=st.booleans(),
)


def test_rates_of_whole_seconds_and_a_rest():
    assert window_rates([(0.1, 10), (0.9, 10), (1.5, 30), (2.2, 6)], 2.6) == pytest.approx((20, 30, 10))


def test_a_short_rest_belongs_to_the_second_before():
    assert window_rates([(0.5, 10), (1.2, 4)], 1.4) == pytest.approx((10,))


def test_a_run_below_a_second_has_one_rate():
    assert window_rates([(0.01, 5), (0.2, 5)], 0.25) == pytest.approx((40,))


def test_no_time_no_rates():
    assert window_rates([(0.0, 5)], 0.0) == ()


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 10**9)), max_size=50), seconds)
def test_no_byte_is_lost_and_the_average_is_between_the_extremes(fractions, length):
    rates = window_rates([(at * length, size) for at, size in fractions], length)
    last = length - (len(rates) - 1)
    total = sum(rates[:-1]) + rates[-1] * last
    assert math.isclose(total, sum(size for _, size in fractions), rel_tol=1e-6, abs_tol=1e-6)
    assert min(rates) * 0.999 <= total / length <= max(rates) * 1.001


def test_the_95th_of_a_hundred():
    assert percentile(list(range(100, 0, -1)), 95) == 95
    assert percentile([7], 95) == 7
    assert percentile([], 95) is None


@given(st.lists(st.integers(), min_size=1), st.integers(1, 100))
def test_a_percentile_is_a_value_that_so_many_do_not_exceed(values, percent):
    found = percentile(values, percent)
    assert found in values
    assert sum(v <= found for v in values) * 100 >= percent * len(values)
    assert sum(v < found for v in values) * 100 < percent * len(values)


def test_a_summary():
    done = BenchRun(100, 2.0, 0.1, 0.2, rates=(40.0, 60.0))
    again = BenchRun(100, 3.0, None, 0.4, rates=(10.0,), retried=True)
    broken = BenchRun(100, None, 0.3, None, error="connection refused")
    found = summarize([done, broken, again])
    assert (found.runs, found.failed, found.retried, found.error) == (3, 1, 1, "connection refused")
    assert found.connect == pytest.approx(0.2)
    assert found.first_byte == pytest.approx(0.3)
    assert found.complete == pytest.approx(2.5)
    assert found.average == pytest.approx(40.0)
    assert (found.peak, found.p95) == (60.0, 60.0)
    assert found.utilisation(80.0) == pytest.approx(0.5)
    assert found.utilisation(None) is None


def test_a_mirror_that_never_delivered_has_no_figures():
    found = summarize([BenchRun(100, None, None, None, error="down")] * 3)
    assert (found.failed, found.complete, found.average, found.peak, found.p95) == (3, None, None, None, None)
    assert found.utilisation(10.0) is None


@given(st.lists(runs, max_size=20))
def test_counts_add_up(found):
    total = summarize(found)
    assert total.runs == len(found)
    assert 0 <= total.failed <= total.runs
    assert (total.average is None) == (total.failed == total.runs)
    assert total.peak is None or total.p95 is None or total.peak >= total.p95
