import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.origin.mirrors.estimates import Estimate, Meter, Quality

HOUR = 3600.0


def test_an_estimate_without_samples_is_unknown():
    assert Estimate().known(0.0) is None


def test_a_mean_weighs_its_samples_and_drops_those_beyond_its_memory():
    estimate = Estimate()
    for value in (10.0, 10.0, 40.0):
        estimate = estimate.with_sample(value, 1.0, 0.0, memory=8.0)
    assert estimate.known(0.0) == pytest.approx(20.0)
    for _ in range(100):
        estimate = estimate.with_sample(40.0, 1.0, 0.0, memory=8.0)
    assert estimate.known(0.0) == pytest.approx(40.0, rel=0.01)
    assert estimate.weight == pytest.approx(8.0)


def test_old_samples_count_less_and_are_forgotten_in_the_end():
    old = Estimate().with_sample(10.0, 8.0, 0.0, memory=8.0)
    assert old.known(2 * HOUR) == 10.0
    assert old.with_sample(40.0, 2.0, 2 * HOUR, memory=8.0).known(2 * HOUR) == pytest.approx(25.0)
    assert old.known(10 * HOUR) is None


def test_a_clock_set_back_does_not_raise_the_weight_of_a_sample():
    assert Estimate().with_sample(1.0, 1.0, 1e6, memory=8.0).with_sample(3.0, 1.0, 0.0, memory=8.0).value == 2.0


@given(st.lists(st.tuples(st.floats(0, 1e12), st.floats(0.01, 20), st.floats(0, 1e6)), min_size=1, max_size=50))
def test_a_mean_is_between_its_samples(samples):
    estimate, now = Estimate(), 0.0
    for value, weight, later in samples:
        now += later
        estimate = estimate.with_sample(value, weight, now, memory=10.0)
    values = [value for value, _, _ in samples]
    assert min(values) * (1 - 1e-9) <= estimate.value <= max(values) * (1 + 1e-9)


def test_a_quality_keeps_its_three_figures_apart():
    quality = Quality().connected(0.1, 0.0).answered(0.2, 0.0).delivered(5e6, 0.5, 0.0)
    figures = quality.connect.known(0.0), quality.first_byte.known(0.0), quality.rate.known(0.0)
    assert figures == (0.1, 0.2, 5e6)


def test_a_meter_measures_while_bytes_flow():
    meter = Meter()
    assert meter.received(1_000_000, 10.0) is None, "what came before the first block took unknown time"
    assert meter.received(100, 10.125) is None
    assert meter.received(100, 10.25) == (800.0, 0.25)


def test_a_pause_is_not_a_slow_transfer():
    meter = Meter()
    meter.received(100, 0.0)
    assert meter.received(100, 60.0) is None
    assert meter.received(50, 60.5) == (100.0, 0.5)
    meter.idle()
    assert meter.received(1000, 60.6) is None
