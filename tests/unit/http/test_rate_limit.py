"""Request rates: a burst, then the rate; never more than both allow, at any times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.core.network.addresses import neighbourhood
from p2pmodel.http.limits import BURST_SECONDS, RequestRates


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_then_the_rate() -> None:
    clock = Clock()
    rates = RequestRates(5, clock)
    assert [rates.delay("a") for _ in range(10)] == [0.0] * 10
    assert rates.delay("a") == pytest.approx(0.2)
    assert rates.delay("b") == 0.0
    clock.now += 0.21
    assert rates.delay("a") == 0.0
    assert rates.delay("a") > 0.0
    clock.now += 100
    assert [rates.delay("a") for _ in range(10)] == [0.0] * 10


@given(rate=st.floats(0.01, 1e4), pauses=st.lists(st.floats(0, 3), max_size=60))
def test_never_more_than_burst_and_rate_and_waiting_helps(rate: float, pauses: list[float]) -> None:
    clock = Clock()
    rates = RequestRates(rate, clock)
    admitted = 0
    for pause in pauses:
        clock.now += pause
        wait = rates.delay("a")
        admitted += wait == 0
        if wait:
            clock.now += wait + 1e-6
            assert rates.delay("a") == 0.0
            admitted += 1
        assert admitted <= max(1.0, (BURST_SECONDS + clock.now - 1000.0) * rate) + 1


def test_memory_is_bounded() -> None:
    rates = RequestRates(1, Clock(), most=3)
    for name in "abcd":
        assert rates.delay(name) == rates.delay(name) == 0.0
    assert rates.delay("d") > 0.0
    assert rates.delay("a") == 0.0


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::1"),
        ("", ""),
    ],
)
def test_the_key_of_an_address(address: str, key: str) -> None:
    assert neighbourhood(address) == key
