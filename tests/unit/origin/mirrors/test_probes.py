"""Probes: estimates before they are needed, without cost for downloads."""

import asyncio

from p2pmodel.origin.mirrors.health import State
from tests.support.eventually import eventually
from tests.support.fake_hub import FakeHub

WEIGHTS = "w/model.safetensors"
PROBE = 1 << 18


async def read(origin, snapshot, length=300_000):
    data = await origin.read(snapshot.manifest, snapshot.file(WEIGHTS), 0, length, accept=lambda _: True)
    assert data == snapshot.contents[WEIGHTS][:length]


async def test_a_probe_measures_each_mirror(snapshot, open_origin):
    async with (
        FakeHub(snapshot) as quick,
        FakeHub(snapshot, faults=["html"]) as wrong,
        open_origin(quick, wrong, "http://127.0.0.1:9") as origin,
    ):
        await origin.probe(snapshot.manifest, snapshot.file(WEIGHTS))
        first, second, third = origin.statuses()
        assert (origin.bytes_by_mirror["a"], origin.wasted_bytes) == (PROBE, PROBE)
    assert first.state is State.HEALTHY
    assert first.connect is not None
    assert first.first_byte is not None
    assert first.rate is not None
    assert (second.state, second.reason) == (State.QUARANTINED, "an HTML page instead of the file")
    assert (third.state, third.reason, third.rate) == (State.FAILING, "connection refused", None)


async def test_a_preferred_mirror_that_falls_behind_is_found_out_while_reading(snapshot, open_origin, clock):
    async with (
        FakeHub(snapshot, rate=200_000) as slow,
        FakeHub(snapshot) as quick,
        open_origin(slow, quick) as origin,
    ):
        await read(origin, snapshot)
        clock.time += 61
        await read(origin, snapshot, 1)
        await eventually(lambda: origin.bytes_by_mirror["b"] == PROBE, what="a probe of b")
        await asyncio.sleep(0.05)
        assert [s.state for s in origin.statuses()] == [State.SLOW, State.HEALTHY]
        before = len(slow.requests)
        await read(origin, snapshot)
        assert len(slow.requests) == before


async def test_probes_are_few(snapshot, open_origin, clock):
    async with FakeHub(snapshot) as first, FakeHub(snapshot) as second, open_origin(first, second) as origin:
        for _ in range(50):
            await read(origin, snapshot)
            clock.time += 2
        await eventually(lambda: len(second.requests) == 1, what="the one probe")
        clock.time += 12 * 3600
        await read(origin, snapshot)
        await eventually(lambda: len(second.requests) == 2, what="a second probe, the first being old")


async def test_a_probe_ends_with_its_origin(snapshot, open_origin, clock):
    async with FakeHub(snapshot) as first, FakeHub(snapshot, faults=["stall"]) as second:
        origin = open_origin(first, second, read_timeout=30)
        async with origin:
            await read(origin, snapshot)
            clock.time += 61
            await read(origin, snapshot)
            await eventually(lambda: len(second.requests) == 1, what="a probe")
