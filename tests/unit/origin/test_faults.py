"""Every fault of a mirror: alone it delays the pull or ends it with a precise error; beside a good mirror it does not
prevent it."""

import asyncio
import re

import pytest

from p2pmodel.errors import (
    AccessDenied,
    EntryNotFound,
    GatedRepo,
    P2PModelError,
    RevisionNotFound,
    Unavailable,
    WrongBytes,
)
from tests.support.eventually import PATIENCE
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of
from tests.support.memory_sink import MemorySink

WEIGHTS = "w/model.safetensors"
MIDWAY = "+600000"

FAULTS = {
    "flip": r"got [0-9a-f]{64}",
    "truncate": "got 1499999 bytes",
    "html": "got an HTML page",
    "gzip": "got a gzip stream",
    "other-commit": "got commit 0{40}",
    "badrange": r"got bytes \d+-\d+",
}
DENIALS = {
    "status:401": AccessDenied,
    "status:403": AccessDenied,
    "gated": GatedRepo,
    "status:404": EntryNotFound,
    "status:410": EntryNotFound,
    "status:400": Unavailable,
}
PASSING = [
    "503:10+600000",
    "500:10+600000",
    "429:10",
    "retry:10+600000",
    "retry-date:10+600000",
    "drop:100000",
    "drop:0+600000*5",
    "stall:100000*3",
    "stall+600000*3",
    "status:416+600000*2",
    "norange",
    "norange+600000*1",
    "redirect",
    "expire:5",
]


async def pull(origin, snapshot, path=WEIGHTS):
    sink = MemorySink(snapshot.file(path))
    await origin.pull(snapshot.manifest, snapshot.file(path), sink)
    assert sink.data == snapshot.contents[path]
    return sink


@pytest.mark.parametrize("when", ["", MIDWAY])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_corrupt_mirror_without_others_is_named(snapshot, open_origin, fault, when):
    async with FakeHub(snapshot, faults=[fault + when]) as hub, open_origin(hub) as origin:
        with pytest.raises(WrongBytes) as caught:
            await pull(origin, snapshot)
    expected = (
        f"mirror a sent wrong bytes for {WEIGHTS}: expected sha256 {snapshot.file(WEIGHTS).etag}, {FAULTS[fault]};"
    )
    assert re.match(expected, str(caught.value))


@pytest.mark.parametrize("when", ["", MIDWAY])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_good_mirror_replaces_a_corrupt_one(snapshot, open_origin, notes, fault, when):
    async with (
        FakeHub(snapshot, faults=[fault + when]) as corrupt,
        FakeHub(snapshot) as good,
        open_origin(corrupt, good) as origin,
    ):
        await pull(origin, snapshot)
    assert any(note.startswith(f"mirror a sent wrong bytes for {WEIGHTS}: ") for note in notes)
    assert good.sent > 0


@pytest.mark.parametrize("denial", DENIALS)
async def test_a_mirror_that_denies(snapshot, open_origin, denial):
    async with FakeHub(snapshot, faults=[denial]) as bad, FakeHub(snapshot) as good:
        async with open_origin(bad) as origin:
            with pytest.raises(P2PModelError) as caught:
                await pull(origin, snapshot)
        assert type(caught.value) is DENIALS[denial]
        assert "(a: HTTP 4" in str(caught.value)
        async with open_origin(bad, good) as origin:
            await pull(origin, snapshot)
            assert origin.bytes_by_mirror == {"a": 0, "b": 1_500_000}


@pytest.mark.parametrize("fault", PASSING)
async def test_temporary_failures_only_delay_even_the_only_mirror(snapshot, open_origin, clock, fault):
    async with FakeHub(snapshot, faults=[fault], now=clock.now) as hub, open_origin(hub) as origin:
        hub.on_request = lambda _: setattr(clock, "time", clock.time + 1)
        sink = await pull(origin, snapshot)
    assert hub.faults[0].hits > 0, "the fault never struck"
    assert sink.discards == 0
    assert sum(length for _, length in sink.writes) == 1_500_000, "bytes were requested twice"


async def test_503_for_ten_seconds_is_waited_out_with_backoff(snapshot, open_origin, clock):
    async with FakeHub(snapshot, faults=["503:10" + MIDWAY], now=clock.now) as hub, open_origin(hub) as origin:
        await pull(origin, snapshot)
    assert 10 <= clock.time - 1000 < 16
    assert max(clock.slept) <= 4


async def test_after_503_the_next_mirror_takes_over_with_a_note(snapshot, open_origin, clock, notes):
    async with (
        FakeHub(snapshot, faults=["503:100" + MIDWAY], now=clock.now) as hub,
        FakeHub(snapshot) as other,
        open_origin(hub, other) as origin,
    ):
        await pull(origin, snapshot)
        received = origin.bytes_by_mirror
    assert received["a"] >= 600_000
    assert received["a"] + received["b"] == 1_500_000
    assert notes[:2] == [
        "mirror a failed: HTTP 503",
        f"mirror b joins for {WEIGHTS}: without it that would take longer",
    ]


@pytest.mark.parametrize("kind", ["retry", "retry-date", "rate-limit"])
async def test_retry_after_is_obeyed(snapshot, open_origin, clock, notes, kind):
    async with FakeHub(snapshot, faults=[f"{kind}:30"], now=clock.now) as hub, open_origin(hub) as origin:
        await pull(origin, snapshot, "config.json")
        assert len(hub.asked("config.json")) <= 3
    assert clock.time - 1000 >= 29
    assert any(re.match(r"waiting 3\d s for mirror a \(HTTP 429\)", note) for note in notes)


async def test_an_absurd_retry_after_is_capped_at_the_patience(snapshot, open_origin, clock):
    async with (
        FakeHub(snapshot, faults=["retry:100000"], now=clock.now) as hub,
        open_origin(hub, patience=50) as origin,
    ):
        with pytest.raises(Unavailable, match="a: HTTP 429"):
            await pull(origin, snapshot)
    assert max(clock.slept) <= 50


async def test_patience_ends_and_every_mirror_is_named(snapshot, open_origin, clock):
    async with (
        FakeHub(snapshot, faults=["503:99999"]) as first,
        FakeHub(snapshot, faults=["stall"]) as second,
        open_origin(first, second, "http://127.0.0.1:9", patience=30, read_timeout=0.1) as origin,
    ):
        with pytest.raises(Unavailable) as caught:
            await pull(origin, snapshot)
    assert "(a: HTTP 503, b: timed out waiting for an answer, c: connection refused)" in str(caught.value)
    assert "resumes" in str(caught.value)
    assert 30 <= clock.time - 1000 < 40


async def test_expired_presigned_addresses_are_resolved_again(snapshot, open_origin, clock):
    async with FakeHub(snapshot, faults=["expire:3"], now=clock.now) as hub:
        hub.on_request = lambda _: setattr(clock, "time", clock.time + 1)
        async with open_origin(hub, connections=1) as origin:
            await pull(origin, snapshot)
    resolved = [r for r in hub.requests if "/resolve/" in r.path]
    refused = [r for r in hub.requests if r.status == 403]
    assert 1 < len(resolved) < 6, "once, and again after each expiry"
    assert len(refused) == len(resolved) - 1
    assert clock.slept == [], "an expired address costs no backoff"


async def test_dropped_connections_resume(snapshot, open_origin):
    async with FakeHub(snapshot, faults=["drop:100000"]) as hub, open_origin(hub, connections=1) as origin:
        sink = await pull(origin, snapshot)
        assert origin.bytes_by_mirror == {"a": 1_500_000}
    assert hub.sent == 1_500_000
    assert sink.writes[:3] == [(0, 100000), (100000, 100000), (200000, 100000)]


async def test_a_mirror_that_ignores_ranges_sends_the_whole_file(snapshot, open_origin):
    async with FakeHub(snapshot, faults=["norange"]) as hub, open_origin(hub) as origin:
        await pull(origin, snapshot)
    assert [r.range for r in hub.requests if r.sent == 1_500_000][-1] == ""
    assert len(hub.requests) <= 5


async def test_without_a_suspect_the_mirrors_are_tried_one_by_one(snapshot, open_origin, notes):
    corrupt = FakeHub(snapshot, faults=["flip*1", "503:10" + MIDWAY])
    async with (
        corrupt,
        FakeHub(snapshot, faults=["flip"]) as second,
        FakeHub(snapshot) as third,
        open_origin(corrupt, second, third) as origin,
    ):
        sink = await pull(origin, snapshot)
    assert sink.discards >= 2
    assert third.sent >= 1_500_000 or corrupt.sent >= 2_000_000


async def test_every_corrupt_mirror_is_named(snapshot, open_origin):
    async with (
        FakeHub(snapshot, faults=["flip"]) as first,
        FakeHub(snapshot, faults=["html"]) as second,
        open_origin(first, second) as origin,
    ):
        with pytest.raises(WrongBytes, match="mirrors a and b sent wrong bytes") as caught:
            await pull(origin, snapshot)
    assert caught.value.path == WEIGHTS


async def test_a_corrupt_mirror_is_last_for_the_other_files(snapshot, open_origin):
    async with (
        FakeHub(snapshot, faults=["flip@*.safetensors"]) as corrupt,
        FakeHub(snapshot) as good,
        open_origin(corrupt, good) as origin,
    ):
        await pull(origin, snapshot)
        await pull(origin, snapshot, "config.json")
    assert corrupt.asked("config.json") == []


async def test_a_mirror_without_the_revision(snapshot, open_origin):
    other = snapshot_of({"config.json": b"{}"})
    async with FakeHub(other) as hub, open_origin(hub) as origin:
        with pytest.raises(RevisionNotFound, match="RevisionNotFound"):
            await pull(origin, snapshot, "config.json")


async def test_a_hanging_mirror_does_not_outlive_a_cancelled_pull(snapshot, open_origin):
    asked = asyncio.Event()

    class Telling(FakeHub):
        async def _send(self, request, path):
            asked.set()
            return await super()._send(request, path)

    async with Telling(snapshot, faults=["stall:1000"]) as hub, open_origin(hub, read_timeout=60) as origin:
        sink = MemorySink(snapshot.file(WEIGHTS))
        task = asyncio.ensure_future(origin.pull(snapshot.manifest, snapshot.file(WEIGHTS), sink))
        await asyncio.wait_for(asked.wait(), PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


NOTES = {
    "503:99": "a failed: HTTP 503",
    "429:99": "a failed: HTTP 429",
    "rate-limit:99": "a failed: HTTP 429",
    "status:416": "a failed: HTTP 416 (range refused)",
    "drop:100000": "a failed: connection lost",
    "stall": "a failed: stalled, another mirror was first",
    "status:404": f"a is left out for {WEIGHTS}: HTTP 404",
    "status:403": f"a is left out for {WEIGHTS}: HTTP 403 (it requires a token)",
    "loop": f"a is left out for {WEIGHTS}: more than 5 redirects",
    "html": f"a sent wrong bytes for {WEIGHTS}: an HTML page instead of the file",
    "gzip": f"a sent wrong bytes for {WEIGHTS}: a gzip-compressed body that was not requested",
    "truncate": f"a sent wrong bytes for {WEIGHTS}: wrong size: 1499999 bytes instead of 1500000",
    "badrange": f"a sent wrong bytes for {WEIGHTS}: bytes ",
    "other-commit": f"a sent wrong bytes for {WEIGHTS}: stale, it serves commit {'0' * 40}",
    "refused": "a failed: connection refused",
    "no-name": "a failed: its name does not resolve (DNS)",
    "no-tls": "a failed: TLS failed (",
}
ADDRESSES = {"refused": "http://127.0.0.1:9", "no-name": "http://no-such.invalid"}


@pytest.mark.parametrize("fault", NOTES)
async def test_each_fault_has_its_note_and_no_byte_comes_twice(snapshot, open_origin, notes, fault):
    named = fault in ("refused", "no-name", "no-tls")
    async with FakeHub(snapshot, faults=[] if named else [fault]) as bad, FakeHub(snapshot) as good:
        address = ADDRESSES.get(fault) or (bad.url.replace("http:", "https:") if fault == "no-tls" else bad)
        async with open_origin(address, good, read_timeout=20) as origin:
            sink = await pull(origin, snapshot)
            assert origin.wasted_bytes == 0
            assert sum(origin.bytes_by_mirror.values()) == sum(length for _, length in sink.writes) == 1_500_000
    assert any(note.startswith(f"mirror {NOTES[fault]}") for note in notes), notes
