"""Probes on request: their readings, and the recorded state."""

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.origin.mirrors.health import State
from p2pmodel.origin.mirrors.measurement import MirrorMeasurement
from tests.support.fake_hub import FakeHub

WEIGHTS = "w/model.safetensors"


def measurement(tmp_path, *urls, **token):
    mirrors = [MirrorSettings(name=name, endpoint=url, **token) for name, url in zip("abc", urls, strict=False)]
    return MirrorMeasurement(mirrors, OriginSettings(connect_timeout=2.0, read_timeout=0.4, state_dir=tmp_path))


def sample(snapshot):
    return snapshot.manifest, snapshot.file(WEIGHTS)


async def test_latency_alone(snapshot, tmp_path):
    async with FakeHub(snapshot) as hub:
        first, second = await measurement(tmp_path, hub.url, "http://127.0.0.1:9").measure()
    assert (first.error, first.rate) == ("", None)
    assert 0 < first.connect < 1
    assert 0 < first.first_byte < 1
    assert (second.connect, second.first_byte, second.error) == (None, None, "connection refused")


async def test_a_read_measures_the_rate(snapshot, tmp_path):
    async with FakeHub(snapshot, rate=3_000_000) as hub:
        (reading,) = await measurement(tmp_path, hub.url).measure(sample(snapshot))
    assert reading.error == ""
    assert 1_500_000 < reading.rate < 6_000_000


async def test_every_probe_makes_a_connection_of_its_own(snapshot, tmp_path):
    async with FakeHub(snapshot) as hub:
        for _ in range(3):
            (reading,) = await measurement(tmp_path, hub.url).measure()
            assert reading.connect is not None


async def test_readings_are_stored_and_listed_in_the_order_of_the_mirrors(snapshot, tmp_path):
    async with FakeHub(snapshot) as hub:
        both = measurement(tmp_path, hub.url, "http://127.0.0.1:9")
        assert [k.rate for k in await both.recorded()] == [None, None]
        await both.measure(sample(snapshot))
        known = await both.recorded()
    assert [k.name for k in known] == ["a", "b"]
    assert all(value is not None for value in (known[0].connect, known[0].first_byte, known[0].rate))
    assert (known[0].state, known[0].reason) == (State.HEALTHY, "")
    assert known[1].reason == "connection refused"


async def test_a_mirror_that_answers_with_a_page_is_an_error(snapshot, tmp_path):
    async with FakeHub(snapshot, faults=["html"]) as wrong, FakeHub(snapshot, faults=["norange"]) as whole:
        first, second = await measurement(tmp_path, wrong.url, whole.url).measure(sample(snapshot))
    assert (first.error, first.rate) == ("an HTML page instead of the file", None)
    assert second.error == "it answers a range with the whole file"


async def test_a_stalled_read_is_an_error(snapshot, tmp_path):
    async with FakeHub(snapshot, faults=["stall"]) as hub:
        (reading,) = await measurement(tmp_path, hub.url).measure(sample(snapshot))
    assert reading.error == "timed out waiting for an answer"


async def test_a_greeting_carries_no_token(snapshot, tmp_path):
    async with FakeHub(snapshot, token="secret") as hub:
        (reading,) = await measurement(tmp_path, hub.url, token="secret").measure(sample(snapshot))
    assert reading.error == ""
    assert reading.rate is not None
