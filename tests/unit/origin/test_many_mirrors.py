"""Several mirrors as one source: selection, division of the work, and tracing of wrong bytes."""

import asyncio
import hashlib
import time

import pytest

from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.core.content.names import Reference
from p2pmodel.origin.mirrors.health import State
from tests.support.eventually import PATIENCE, eventually
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of
from tests.support.memory_sink import MemorySink

WEIGHTS = "w/model.safetensors"
SIZE = 1_500_000


async def pull(origin, snapshot, path=WEIGHTS):
    sink = MemorySink(snapshot.file(path))
    await origin.pull(snapshot.manifest, snapshot.file(path), sink)
    assert sink.data == snapshot.contents[path]
    return sink


def states(origin):
    return {s.name: s.state for s in origin.statuses()}


async def test_a_quick_mirror_works_alone(snapshot, open_origin, notes):
    async with FakeHub(snapshot) as first, FakeHub(snapshot) as second, open_origin(first, second) as origin:
        await pull(origin, snapshot)
        assert origin.bytes_by_mirror == {"a": SIZE, "b": 0}
        assert origin.wasted_bytes == 0
    assert notes == []


async def test_slow_mirrors_work_together_each_for_what_it_delivers(snapshot, open_origin, notes):
    async with (
        FakeHub(snapshot, faults=["slow:200000"]) as slow,
        FakeHub(snapshot, faults=["slow:400000"]) as quicker,
        open_origin(slow, quicker, part_size=1 << 16, connections=2) as origin,
    ):
        await pull(origin, snapshot)
        received, wasted = origin.bytes_by_mirror, origin.wasted_bytes
    assert sum(received.values()) - wasted == SIZE
    assert 1.15 < received["b"] / received["a"] < 2.6
    assert wasted < 0.1 * SIZE
    assert notes[0] == f"mirror b joins for {WEIGHTS}: without it that would take longer"


async def test_a_fallback_never_joins_but_steps_in(snapshot, open_origin):
    async with FakeHub(snapshot, faults=["slow:800000"]) as slow, FakeHub(snapshot) as dear:
        spare = MirrorSettings(name="spare", endpoint=dear.url, priority=-1, fallback=True)
        only = MirrorSettings(name="only", endpoint=slow.url, max_connections=2)
        async with open_origin(spare, only) as origin:
            await pull(origin, snapshot)
            assert origin.bytes_by_mirror == {"only": SIZE, "spare": 0}
            slow.faults = []
            slow.faults.append(parse("status:404"))
            await pull(origin, snapshot)
            assert origin.bytes_by_mirror == {"only": SIZE, "spare": SIZE}


def parse(text):
    from tests.support.hub_faults import parse_fault

    return parse_fault(text)


async def test_a_silent_tail_is_fetched_elsewhere_and_the_first_answer_wins(snapshot, open_origin, notes):
    async with (
        FakeHub(snapshot, faults=["stall:100000+1000000"]) as dead,
        FakeHub(snapshot) as alive,
        open_origin(dead, alive, read_timeout=2 * PATIENCE) as origin,
    ):
        sink = await pull(origin, snapshot)
        assert sum(length for _, length in sink.writes) == SIZE, "every byte was written once"
        assert states(origin)["a"] is State.FAILING
        assert origin.wasted_bytes <= 4 * (1 << 18)
    assert "mirror a failed: stalled, another mirror was first" in notes


async def test_the_death_of_the_preferred_mirror_costs_no_byte(snapshot, open_origin):
    async with FakeHub(snapshot) as survivor:
        dying = FakeHub(snapshot, faults=["slow:300000"])
        async with dying, open_origin(dying, survivor, part_size=1 << 17) as origin:
            task = asyncio.ensure_future(pull(origin, snapshot))
            await eventually(lambda: dying.sent > 200_000, what="bytes from the first mirror")
            await dying.__aexit__()
            sink = await task
            assert sum(length for _, length in sink.writes) == SIZE


@pytest.mark.parametrize("fault", ["flip", "flip+100000"])
async def test_only_the_corrupt_mirror_among_several_is_quarantined(snapshot, open_origin, notes, fault):
    async with (
        FakeHub(snapshot, faults=["slow:1000000"]) as good,
        SlowStart(snapshot, faults=[fault]) as corrupt,
        FakeHub(snapshot, faults=["slow:1000000"]) as third,
        open_origin(good, corrupt, third, part_size=1 << 16, connections=1) as origin,
    ):
        sink = await pull(origin, snapshot)
        assert states(origin) == {"a": State.HEALTHY, "b": State.QUARANTINED, "c": State.HEALTHY}
        assert origin.wasted_bytes < 0.75 * SIZE
    assert sink.discards == 0
    assert sum(length for _, length in sink.forgotten) < SIZE
    assert f"{WEIGHTS} fails its hash: checking what each mirror sent" in notes
    assert any(note.startswith(f"mirror b sent wrong bytes for {WEIGHTS}: expected sha256 ") for note in notes)


class SlowStart(FakeHub):
    """A hub that answers late, so that others get their share."""

    async def _send(self, request, path):
        await asyncio.sleep(0.1)
        return await super()._send(request, path)


async def test_with_two_mirrors_the_hash_decides_which_is_corrupt(snapshot, open_origin):
    async with (
        FakeHub(snapshot, faults=["slow:1000000"]) as good,
        SlowStart(snapshot, faults=["flip"]) as corrupt,
        open_origin(good, corrupt, part_size=1 << 16, connections=1) as origin,
    ):
        await pull(origin, snapshot)
        assert states(origin) == {"a": State.HEALTHY, "b": State.QUARANTINED}


async def test_a_mirror_of_another_version_is_out_before_its_first_byte(snapshot, open_origin, notes):
    class Other(FakeHub):
        def _headers(self, path):
            return super()._headers(path) | {"X-Linked-Etag": f'"{"a" * 64}"'}

    async with Other(snapshot) as stale, FakeHub(snapshot) as right, open_origin(stale, right) as origin:
        await pull(origin, snapshot)
        assert origin.bytes_by_mirror["b"] == SIZE
        assert origin.wasted_bytes == 0
    assert any(f"stale, its file has the hash {'a' * 64}" in note for note in notes)


async def test_a_cancelled_pull_gives_every_connection_back(snapshot, open_origin):
    async with FakeHub(snapshot) as hub, open_origin(hub, part_size=1 << 16, connections=2) as origin:
        for steps in range(12):
            task = asyncio.ensure_future(pull(origin, snapshot))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(PATIENCE):
            await pull(origin, snapshot)


async def test_connections_are_shared_among_the_files_that_need_them(open_origin):
    names = [f"{n}.bin" for n in range(4)]
    snapshot = snapshot_of({name: bytes([n]) * 400_000 for n, name in enumerate(names)})
    async with (
        FakeHub(snapshot, faults=["slow:400000"]) as hub,
        open_origin(hub, part_size=1 << 16, connections=4) as origin,
    ):
        await asyncio.gather(*(pull(origin, snapshot, name) for name in names))
    early = {r.path.rpartition("/")[2] for r in hub.requests[:12]}
    assert early == set(names), "no file waits for another to end"


async def test_a_rate_cap_holds_over_all_connections(snapshot, open_origin):
    async with FakeHub(snapshot) as hub:
        capped = MirrorSettings(name="a", endpoint=hub.url, max_bytes_per_second=1_000_000)
        async with open_origin(capped, part_size=1 << 17) as origin:
            began = time.monotonic()
            await pull(origin, snapshot)
            assert time.monotonic() - began > 1.2


async def test_a_quarantine_survives_a_restart(snapshot, open_origin, tmp_path):
    async with FakeHub(snapshot, faults=["flip@*.safetensors"]) as corrupt, FakeHub(snapshot) as good:
        async with open_origin(corrupt, good, state_dir=tmp_path) as origin:
            await pull(origin, snapshot)
        before = len(corrupt.requests)
        async with open_origin(corrupt, good, state_dir=tmp_path) as origin:
            assert states(origin)["a"] is State.QUARANTINED
            assert origin.statuses()[0].reason.startswith("expected sha256")
            await pull(origin, snapshot, "config.json")
            await origin.manifest(Reference.parse("org/model"))
        assert len(corrupt.requests) == before


async def test_on_trial_a_mirror_gets_one_request_at_a_time(snapshot, open_origin, clock):
    busy = most = 0

    class Watched(FakeHub):
        async def _send(self, request, path):
            nonlocal busy, most
            busy += 1
            most = max(most, busy)
            await asyncio.sleep(0.01)
            try:
                return await super()._send(request, path)
            finally:
                busy -= 1

    async with Watched(snapshot, faults=["flip*9"]) as hub, open_origin(hub, part_size=1 << 17) as origin:
        with pytest.raises(Exception, match="wrong bytes"):
            await pull(origin, snapshot)
        assert most > 1
        hub.faults.clear()
        clock.time += 601
        assert states(origin)["a"] is State.TRIAL
        most = 0
        await pull(origin, snapshot)
        assert most == 1
        assert states(origin)["a"] is State.HEALTHY


@pytest.mark.parametrize("kind", ["sha256", "sha1", "md5"])
async def test_a_mirror_with_etags_of_its_own_is_judged_by_its_bytes(snapshot, open_origin, notes, kind):
    class Own(FakeHub):
        def _headers(self, path):
            headers = super()._headers(path)
            del headers["X-Linked-Etag"]
            return headers | {"ETag": f'"{hashlib.new(kind, self.snapshot.contents[path]).hexdigest()}"'}

    async with Own(snapshot) as own, open_origin(own) as origin:
        await pull(origin, snapshot)
        for path in snapshot.contents:
            await pull(origin, snapshot, path)
        assert states(origin) == {"a": State.HEALTHY}
    assert notes == []
