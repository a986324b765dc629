"""A mirror changes its own health, estimates and counters; all others only read them."""

from base64 import b64encode

import pytest
from pydantic import SecretStr
from yarl import URL

from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.origin.failures import Failed
from p2pmodel.origin.mirrors.estimates import Quality
from p2pmodel.origin.mirrors.health import State
from p2pmodel.origin.mirrors.mirror import Mirror, MirrorCounters, compare, mirrors_of


def mirror(name: str = "a") -> Mirror:
    [made] = mirrors_of([MirrorSettings(name=name, endpoint=f"http://{name}.example")])
    return made


def measured(name: str, rate: float) -> Mirror:
    one = mirror(name)
    one.recalled(Quality().delivered(rate, 5.0, 0.0), slow=False, corruptions=0, quarantined_until=0.0, reason="")
    return one


def test_only_its_methods_change_its_state() -> None:
    one = mirror()
    for name in ("health", "quality", "counters", "reason", "active_at"):
        with pytest.raises(AttributeError):
            setattr(one, name, getattr(one, name))


def test_bytes_and_failures_are_counted() -> None:
    one = mirror()
    one.received(10, 0.0)
    one.relayed(5)
    one.wasted(3)
    one.failed(Failed("timed out", slow=True), 0.0, no_bytes=True)
    one.corrupted(0.0)
    assert one.counters == MirrorCounters(received=15, wasted=3, failovers=1, quarantines=1)
    assert (one.reason, one.status(0.0).state) == ("timed out", State.QUARANTINED)


def test_a_response_ends_a_failure_and_verified_bytes_end_a_trial() -> None:
    one = mirror()
    one.failed(Failed("HTTP 503"), 0.0, no_bytes=True)
    assert one.status(1.0).state is State.FAILING
    one.served()
    assert one.status(1.0).state is State.HEALTHY
    one.corrupted(1.0)
    assert one.status(602.0).state is State.TRIAL
    one.verified(602.0)
    assert one.status(602.0).state is State.HEALTHY


def test_only_a_measured_rate_makes_a_mirror_slow() -> None:
    quick, probed, slow = measured("a", 1e8), mirror("b"), measured("c", 1e6)
    probed.probed(1e6, 0.0)
    compare([quick, probed, slow], 0.0)
    assert [each.status(0.0).state for each in (quick, probed, slow)] == [State.HEALTHY, State.HEALTHY, State.SLOW]


def test_a_token_goes_to_its_own_endpoint_alone() -> None:
    [one] = mirrors_of([MirrorSettings(name="a", endpoint="https://a.example/hf", token=SecretStr("hush"))])
    assert one.authorization(URL("https://a.example/x")) == {"Authorization": "Bearer hush"}
    for other in ("https://b.example/", "http://a.example/", "https://a.example:444/", "https://me@a.example/"):
        assert one.authorization(URL(other)) == {}


def test_with_a_username_the_token_is_its_password() -> None:
    settings = MirrorSettings(name="a", endpoint="https://a.example", username="me", token=SecretStr("hush"))
    [one] = mirrors_of([settings])
    url = URL("https://a.example/x")
    assert one.authorization(url) == {"Authorization": f"Basic {b64encode(b'me:hush').decode()}"}
    assert one.bearer(url, "of-a-client") == {"Authorization": "Bearer of-a-client"}
    assert one.authorization(URL("https://b.example/")) == {}
