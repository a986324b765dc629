"""A pull without faults: results and invariants."""

import asyncio

import pytest
from pydantic import SecretStr

from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.errors import NoSpace, Unavailable, WrongBytes
from p2pmodel.origin import requests
from p2pmodel.origin.failures import Refused
from p2pmodel.origin.requests import target_of
from tests.support.fake_hub import FakeHub
from tests.support.memory_sink import MemorySink

WEIGHTS = "w/model.safetensors"


async def pull(origin, snapshot, path=WEIGHTS, sink=None, **options):
    sink = sink or MemorySink(snapshot.file(path))
    await origin.pull(snapshot.manifest, snapshot.file(path), sink, **options)
    return sink


async def test_every_byte_comes_once_in_parts_over_several_connections(snapshot, open_origin):
    sizes = []
    async with FakeHub(snapshot) as hub, open_origin(hub) as origin:
        sink = await pull(origin, snapshot, on_bytes=sizes.append)
        assert origin.bytes_by_mirror == {"a": 1_500_000}
    assert sink.data == snapshot.contents[WEIGHTS]
    assert sum(sizes) == 1_500_000
    assert sorted(r.range for r in hub.requests) == sorted(
        f"bytes={start}-{min(start + (1 << 18), 1_500_000) - 1}" for start in range(0, 1_500_000, 1 << 18)
    )


async def test_connections_are_bounded_over_all_pulls_together(snapshot, open_origin):
    busy = most = 0

    class Watched(FakeHub):
        async def _send(self, request, path):
            nonlocal busy, most
            busy += 1
            most = max(most, busy)
            await asyncio.sleep(0.005)
            try:
                return await super()._send(request, path)
            finally:
                busy -= 1

    async with Watched(snapshot) as hub, open_origin(hub, connections=3, part_size=1 << 16) as origin:
        await asyncio.gather(*(pull(origin, snapshot) for _ in range(3)))
    assert most == 3


async def test_on_a_slow_link_bytes_reach_the_sink_before_a_chunk_is_full(snapshot, open_origin, monkeypatch):
    monkeypatch.setattr(requests, "CHUNK_SECONDS", 0.1)
    sizes = []
    async with FakeHub(snapshot, faults=["slow:3000000"]) as hub, open_origin(hub, part_size=1 << 20) as origin:
        await pull(origin, snapshot, on_bytes=sizes.append)
    assert sum(sizes) == 1_500_000
    assert len(sizes) >= 4


async def test_only_missing_ranges_are_requested(snapshot, open_origin):
    sink = MemorySink(snapshot.file(WEIGHTS))
    sink.put(0, snapshot.contents[WEIGHTS][:1_000_000])
    sink.put(1_200_000, snapshot.contents[WEIGHTS][1_200_000:])
    async with FakeHub(snapshot) as hub, open_origin(hub) as origin:
        await pull(origin, snapshot, sink=sink)
    assert [r.range for r in hub.requests] == ["bytes=1000000-1199999"]


async def test_wrong_bytes_of_an_earlier_run_blame_no_mirror(snapshot, open_origin, notes):
    sink = MemorySink(snapshot.file(WEIGHTS))
    sink.put(0, bytes(1_000_000))
    async with FakeHub(snapshot) as hub, open_origin(hub) as origin:
        await pull(origin, snapshot, sink=sink)
    assert sink.data == snapshot.contents[WEIGHTS]
    assert sink.forgotten == [(0, 1_000_000)]
    assert notes == []


async def test_a_whole_file_already_there_costs_no_request(snapshot, open_origin):
    sink = MemorySink(snapshot.file(WEIGHTS))
    sink.put(0, snapshot.contents[WEIGHTS])
    async with FakeHub(snapshot) as hub, open_origin(hub) as origin:
        await pull(origin, snapshot, sink=sink)
    assert hub.requests == []


async def test_empty_files(snapshot, open_origin):
    wrong = ManifestFile("empty.txt", 0, "1" * 40)
    async with FakeHub(snapshot) as hub, open_origin(hub) as origin:
        await pull(origin, snapshot, "empty.txt")
        with pytest.raises(WrongBytes, match="the manifest sent wrong bytes for empty"):
            await origin.pull(snapshot.manifest, wrong, MemorySink(wrong))
    assert hub.requests == []


async def test_a_full_disk_ends_the_pull_as_it_is(snapshot, open_origin):
    class Full(MemorySink):
        async def write(self, offset, data):
            raise NoSpace("no space left on the disk")

    async with FakeHub(snapshot) as hub, open_origin(hub) as origin:
        with pytest.raises(NoSpace):
            await pull(origin, snapshot, sink=Full(snapshot.file(WEIGHTS)))


async def test_no_mirrors_at_all(snapshot, open_origin):
    async with open_origin() as origin:
        with pytest.raises(Unavailable, match="no mirror is configured"):
            await pull(origin, snapshot)


async def test_paths_are_quoted_and_prefixes_preserved(open_origin):
    from tests.support.hub_snapshot import snapshot_of

    odd = snapshot_of({"a b/ü%20#?+.bin": b"odd"}, repo="single")
    async with FakeHub(odd, prefix="/mirrors/hf") as hub, open_origin(hub) as origin:
        await pull(origin, odd, "a b/ü%20#?+.bin")


async def test_the_priority_order_is_the_settings_not_the_lists(snapshot, open_origin):
    async with FakeHub(snapshot) as first, FakeHub(snapshot) as second:
        late = MirrorSettings(name="late", endpoint=first.url, priority=5)
        early = MirrorSettings(name="early", endpoint=second.url, priority=1)
        async with open_origin(late, early) as origin:
            await pull(origin, snapshot)
            assert origin.bytes_by_mirror == {"early": 1_500_000, "late": 0}


async def test_mirrors_of_one_name_are_distinguished(snapshot, open_origin):
    async with FakeHub(snapshot) as hub:
        mirror = MirrorSettings(name="hub", endpoint=hub.url)
        async with open_origin(mirror, mirror) as origin:
            assert list(origin.bytes_by_mirror) == ["hub", "hub (2)"]


async def test_the_token_goes_to_its_mirror_only(snapshot, open_origin):
    async with FakeHub(snapshot) as storage:
        hub = FakeHub(snapshot, token="hf_secret", faults=["redirect"], redirect_to=storage.url)
        async with hub, FakeHub(snapshot) as other:
            private = MirrorSettings(name="private", endpoint=hub.url, token=SecretStr("hf_secret"))
            async with open_origin(private, other) as origin:
                await pull(origin, snapshot)
                assert origin.bytes_by_mirror["private"] == 1_500_000
    assert {r.token for r in hub.requests} == {"hf_secret"}
    assert storage.requests
    assert {r.token for r in storage.requests} == {""}


async def test_the_token_is_in_no_message(snapshot, open_origin, notes):
    async with FakeHub(snapshot, token="right") as hub:
        mirror = MirrorSettings(name="a", endpoint=hub.url, token=SecretStr("hf_secret"))
        async with open_origin(mirror) as origin:
            with pytest.raises(Exception, match="its token is not accepted") as caught:
                await pull(origin, snapshot)
            assert "hf_secret" not in str(caught.value) + repr(origin) + " ".join(notes)


async def test_a_redirect_is_resolved_once_for_a_file(snapshot, open_origin):
    async with FakeHub(snapshot, faults=["redirect"]) as hub, open_origin(hub, connections=1) as origin:
        await pull(origin, snapshot)
    assert sum("/resolve/" in r.path for r in hub.requests) == 1


async def test_redirects_in_a_circle_end(snapshot, open_origin):
    class Circle(FakeHub):
        async def _presigned(self, request):
            return await self._resolve_again(request)

        async def _resolve_again(self, request):
            from aiohttp import web

            raise web.HTTPTemporaryRedirect(request.path_qs)

    async with Circle(snapshot, faults=["redirect"]) as hub, open_origin(hub) as origin:
        with pytest.raises(Unavailable, match="more than 5 redirects"):
            await pull(origin, snapshot, "config.json")
    assert len(hub.requests) == 6


@pytest.mark.parametrize("location", [None, "", "ftp://host/x", "file:///etc/passwd", "http://[x/"])
def test_redirects_to_nowhere(location):
    from yarl import URL

    with pytest.raises(Refused, match="an unusable address"):
        target_of(URL("http://hub/a/b"), location)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/c?d=%2F%2B", "http://hub/c?d=%2F%2B"),
        ("c", "http://hub/a/c"),
        ("https://cdn/x?Signature=a~b%3D&Key-Pair-Id=K", "https://cdn/x?Signature=a~b%3D&Key-Pair-Id=K"),
        ("http://cdn/a b#fragment", "http://cdn/a%20b"),
    ],
)
def test_presigned_addresses_are_not_changed(location, target):
    from yarl import URL

    assert str(target_of(URL("http://hub/a/b"), location)) == target


async def test_a_stall_is_detected_once_for_all_files(snapshot, open_origin):
    async with (
        FakeHub(snapshot, faults=["stall"]) as dead,
        FakeHub(snapshot) as alive,
        open_origin(dead, alive, connections=1, read_timeout=0.2) as origin,
    ):
        await asyncio.gather(*(pull(origin, snapshot, "config.json") for _ in range(20)))
    assert len(dead.requests) == 1
    assert len(alive.requests) == 20
