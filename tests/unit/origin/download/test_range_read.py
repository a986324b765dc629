import asyncio
import threading

import pytest

from p2pmodel.errors import Unavailable, WrongBytes
from p2pmodel.origin.download import range_read
from tests.support.fake_hub import FakeHub

WEIGHTS = "w/model.safetensors"
OFFSET, LENGTH = 100_000, 300_000


async def read(origin, snapshot, offset=OFFSET, length=LENGTH):
    right = snapshot.contents[WEIGHTS][offset : offset + length]
    data = await origin.read(
        snapshot.manifest, snapshot.file(WEIGHTS), offset, length, accept=lambda found: found == right
    )
    assert data == right


async def test_a_range_comes_in_one_request(snapshot, open_origin):
    async with FakeHub(snapshot) as hub, open_origin(hub) as origin:
        await read(origin, snapshot)
        assert origin.bytes_by_mirror == {"a": LENGTH}
    assert [r.range for r in hub.requests] == ["bytes=100000-399999"]


@pytest.mark.parametrize(("length", "on_the_loop"), [(10, True), (LENGTH, False)])
async def test_a_check_that_takes_long_runs_off_the_loop(snapshot, open_origin, length, on_the_loop):
    threads = []
    async with FakeHub(snapshot) as hub, open_origin(hub) as origin:
        file = snapshot.file(WEIGHTS)
        accept = lambda _: bool(threads.append(threading.current_thread()) or True)  # noqa: E731
        await origin.read(snapshot.manifest, file, 0, length, accept=accept)
    assert (threads == [threading.main_thread()]) is on_the_loop


@pytest.mark.parametrize("fault", ["flip", "html", "truncate", "other-commit", "norange", "gzip", "badrange"])
async def test_a_bad_mirror_is_skipped(snapshot, open_origin, fault):
    async with FakeHub(snapshot, faults=[fault]) as bad, FakeHub(snapshot) as good, open_origin(bad, good) as origin:
        await read(origin, snapshot)
    assert len(good.requests) == 1


@pytest.mark.parametrize("fault", ["drop:100000*2", "503:10", "stall:1000*1", "retry:5", "expire:2"])
async def test_a_read_resumes_after_temporary_failures(snapshot, open_origin, clock, fault):
    async with FakeHub(snapshot, faults=[fault], now=clock.now) as hub, open_origin(hub) as origin:
        await read(origin, snapshot)
        assert origin.bytes_by_mirror == {"a": LENGTH}


async def test_wrong_bytes_are_reported_with_their_range(snapshot, open_origin):
    async with FakeHub(snapshot, faults=["flip"]) as hub, open_origin(hub) as origin:
        with pytest.raises(WrongBytes, match=r"mirror a sent wrong bytes for .*, got other bytes at 100000-400000"):
            await read(origin, snapshot)


async def test_bytes_of_two_mirrors_are_never_mixed(snapshot, open_origin):
    faults = ["drop:100000*1", "status:404"]
    async with (
        FakeHub(snapshot, faults=faults) as first,
        FakeHub(snapshot) as second,
        open_origin(first, second) as origin,
    ):
        await read(origin, snapshot)
    assert [r.range for r in second.requests] == ["bytes=100000-399999"]


async def test_a_mirror_without_ranges_cannot_feed_pieces(snapshot, open_origin):
    async with FakeHub(snapshot, faults=["norange"]) as hub, open_origin(hub) as origin:
        with pytest.raises(Unavailable, match="answers a range with the whole file"):
            await read(origin, snapshot)
        await read(origin, snapshot, 0, 1_500_000)


@pytest.mark.parametrize(("offset", "length"), [(-1, 5), (0, 0), (1_499_999, 2)])
async def test_ranges_outside_the_file(snapshot, open_origin, offset, length):
    async with open_origin() as origin:
        with pytest.raises(ValueError, match="outside"):
            await read(origin, snapshot, offset, length)


async def test_a_mirror_that_sends_a_trickle_is_left_for_another(snapshot, open_origin, monkeypatch, notes):
    monkeypatch.setattr(range_read, "WITHIN", 0.2)
    async with (
        FakeHub(snapshot, faults=["slow:10000"]) as slow,
        FakeHub(snapshot) as good,
        open_origin(slow, good, read_timeout=30.0) as origin,
    ):
        await asyncio.gather(read(origin, snapshot), read(origin, snapshot, 500_000))
        await read(origin, snapshot, 900_000)
        assert origin.bytes_by_mirror["b"] == 3 * LENGTH
    assert len(slow.requests) == 2
    assert any("sends less than" in note for note in notes)


async def test_a_trickle_of_the_only_mirror_is_waited_for(snapshot, open_origin, monkeypatch):
    monkeypatch.setattr(range_read, "WITHIN", 0.1)
    faults = ["slow:40000"]
    async with FakeHub(snapshot, faults=faults) as slow, open_origin(slow, read_timeout=30.0) as origin:
        await read(origin, snapshot, length=30_000)
    assert len(slow.requests) == 1
