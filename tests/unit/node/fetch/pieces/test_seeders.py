"""Seeders as scarce sources: their order, their tokens, and the effect of a failure."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from p2pmodel.config.sections.mirrors import OriginSettings
from p2pmodel.core.network.egress import PUBLIC, Egress
from p2pmodel.errors import P2PModelError, Unavailable, WrongBytes
from p2pmodel.node.fetch.pieces import late_seeders
from p2pmodel.node.fetch.pieces import seeders as module
from p2pmodel.node.fetch.pieces.seeders import Endpoint, Seeders
from p2pmodel.swarm.engine import WebSeeds
from p2pmodel.tls import MutualTls
from tests.support.eventually import PATIENCE, eventually
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of
from tests.support.swarm_certificates import new_authority

SNAPSHOT = snapshot_of({"model.safetensors": bytes(range(256)) * 4096})
FILE = SNAPSHOT.file("model.safetensors")
NEAR = PUBLIC.in_cluster("127.0.0.1")


def endpoint(url: str, token: str = "", zone: str = "") -> Endpoint:
    """A source of a coordinator on this machine."""
    return Endpoint(url, token, zone, NEAR)


CLOSED = endpoint("http://127.0.0.1:1")
SIZE = 5000


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 1.5)
    monkeypatch.setattr(module, "AGAIN_AFTER", 0.2)


@asynccontextmanager
async def seeders(identity: str = "me", **options: int) -> AsyncIterator[Seeders]:
    async with Seeders(OriginSettings(), identity, lambda _: None, **options) as found:
        yield found


async def read(source: Seeders, offset: int = 1000) -> bytes:
    expected = SNAPSHOT.contents["model.safetensors"][offset : offset + SIZE]
    data = await source.read(SNAPSHOT.manifest, FILE, offset, SIZE, accept=lambda data: data == expected)
    assert data == expected
    return data


async def test_there_are_no_seeders_at_first() -> None:
    async with seeders() as found:
        assert not found.usable
        with pytest.raises(Unavailable, match="no seeder is known"):
            await read(found)
        await found.update([])
        assert not found.usable


async def test_a_seeder_receives_its_own_token() -> None:
    async with FakeHub(SNAPSHOT, token="t0ken") as hub, seeders() as found:
        await found.update([endpoint(hub.url, "t0ken")])
        assert found.usable
        await read(found)
        assert {request.token for request in hub.requests} == {"t0ken"}


@pytest.mark.parametrize("fault", ["status:503", "status:404", "status:403", "flip"])
async def test_after_a_failure_seeders_are_paused(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeHub(SNAPSHOT, faults=[fault]) as hub, seeders() as found:
        await found.update([endpoint(hub.url)])
        with pytest.raises(P2PModelError):
            await read(found)
        assert not found.usable
        now = time.monotonic() + module.AGAIN_AFTER
        monkeypatch.setattr(module.time, "monotonic", lambda: now)
        assert found.usable


@pytest.mark.parametrize(
    ("url", "token", "expected"),
    [
        (
            "http://127.0.0.1:6969/source",
            "t0ken",
            "http://p2pmodel:t0ken@127.0.0.1:6969/source/{repo}/resolve/{commit}/",
        ),
        ("http://[::1]:6969/source", "", "http://[::1]:6969/source/{repo}/resolve/{commit}/"),
        ("http://10.1.1.1:80", "a.b~c-d_e", "http://p2pmodel:a.b~c-d_e@10.1.1.1:80/{repo}/resolve/{commit}/"),
        ("https://10.1.1.1:80", "t0ken", None),
        ("http://named.test:80", "t0ken", "http://p2pmodel:t0ken@named.test:80/{repo}/resolve/{commit}/"),
        ("http://other.test:80", "t0ken", None),
        ("http://169.254.169.254:80", "t0ken", None),
        ("http://10.1.1.1:80", "a/b@c", None),
    ],
)
async def test_seeders_as_web_seeds_of_an_engine(url: str, token: str, expected: str | None) -> None:
    rule = NEAR | Egress(hosts=frozenset({"named.test"}))
    manifest = SNAPSHOT.manifest
    async with seeders() as found:
        assert found.web_seeds(manifest, "") == WebSeeds()
        await found.update([Endpoint(url, token, "a", rule)])
        urls = () if expected is None else (expected.format(repo=manifest.repo, commit=manifest.commit),)
        assert found.web_seeds(manifest, "").urls == found.web_seeds(manifest, "a").urls == urls
        assert found.web_seeds(manifest, "b") == WebSeeds(), "it is in another zone"
        if urls:
            assert found.web_seeds(manifest, "a").egress == rule


@pytest.mark.parametrize("url", ["http://10.1.1.1:80/source", "https://10.1.1.1", "http://named.test:80"])
async def test_seeders_of_whole_files(url: str) -> None:
    rule = NEAR | Egress(hosts=frozenset({"named.test"}))
    async with seeders() as found:
        await found.update([Endpoint(url, "t0ken", "a", rule), Endpoint("http://169.254.169.254", "", "a", rule)])
        (source,) = found.file_sources("a")
        assert (source.url, source.token, source.host) == (url, "t0ken", "")
        assert (source.tls is not None) == url.startswith("https:")
        assert "t0ken" not in repr(source)
        assert found.file_sources("") == (source,)
        assert found.file_sources("b") == (), "it is in another zone"
        found.count_file_bytes(source.name, SIZE)
        assert found.received == SIZE
        assert found.bytes_from_outside("a") == 0
        assert found.bytes_from_outside("b") == SIZE
        assert SIZE in [each.downloaded for each in found.connections()]


async def test_members_of_a_private_swarm_get_whole_files_by_its_certificates_alone() -> None:
    tls = MutualTls(new_authority().pem.decode(), "a.test")
    async with seeders() as found:
        found.ask_as(tls)
        await found.update([endpoint("http://10.1.1.1:80"), endpoint("https://10.1.1.2:80")])
        (source,) = found.file_sources("")
        assert (source.tls, source.host) == (tls.client, "a.test")


async def test_nodes_begin_with_different_seeders_of_whole_files() -> None:
    first = set()
    for identity in range(20):
        async with seeders(str(identity)) as found:
            await found.update([endpoint(f"http://10.1.1.{number}:80") for number in range(4)])
            first.add(found.file_sources("")[0].name)
    assert len(first) == 4


async def test_another_seeder_replaces_an_unreachable_one() -> None:
    async with FakeHub(SNAPSHOT) as hub, seeders() as found:
        await found.update([CLOSED, endpoint(hub.url)])
        for offset in range(5):
            await read(found, offset)
        assert found.usable


async def test_each_seeder_is_listed_with_the_bytes_it_sent() -> None:
    async with FakeHub(SNAPSHOT) as hub, FakeHub(SNAPSHOT) as other, seeders() as found:
        assert found.connections() == ()
        await found.update([endpoint(f"{hub.url}/", "t0ken", "rack-1")])
        await read(found)
        [seeder] = found.connections()
        assert (seeder.address, seeder.kind, seeder.zone, seeder.downloaded) == (hub.url, "seeder", "rack-1", SIZE)
        await found.update([endpoint(hub.url), endpoint(other.url)])
        assert [(each.zone, each.downloaded) for each in found.connections()] == [("", 0), ("", 0)]


async def test_new_seeders_end_a_pause_and_known_ones_do_not() -> None:
    async with FakeHub(SNAPSHOT) as hub, seeders() as found:
        await found.update([CLOSED])
        with pytest.raises(P2PModelError):
            await read(found)
        await found.update([CLOSED])
        assert not found.usable
        await found.update([endpoint(hub.url), CLOSED])
        assert found.usable
        await read(found)
        await found.update([])
        await read(found)


async def test_seeders_that_the_coordinator_has_lost_are_tried_once_and_used_again_when_they_are_listed() -> None:
    async with FakeHub(SNAPSHOT) as hub, seeders() as found:
        await found.update([endpoint(hub.url)])
        await found.update([], lost=True)
        await read(found)
        assert found.usable, "what delivers is not lost"
        await found.update([CLOSED])
        await found.update([], lost=True)
        with pytest.raises(P2PModelError):
            await read(found)
        await asyncio.sleep(2 * module.AGAIN_AFTER)
        assert not found.usable
        await found.update([CLOSED])
        assert found.usable


async def test_seeders_are_tried_again_where_no_coordinator_says_that_they_are_back() -> None:
    async with seeders() as found:
        await found.update([CLOSED])
        await found.update([], lost=True)
        with pytest.raises(P2PModelError):
            await read(found)
        await found.update([])
        await eventually(lambda: found.usable, what="the pause after the failure is over")


async def test_a_read_continues_after_an_update() -> None:
    async with FakeHub(SNAPSHOT, rate=20_000) as slow, FakeHub(SNAPSHOT) as quick, seeders() as found:
        await found.update([endpoint(slow.url)])
        async with asyncio.TaskGroup() as group:
            group.create_task(read(found))
            await asyncio.sleep(0.05)
            await found.update([endpoint(quick.url)])
            await read(found)


def beginning_with(first: str, other: str) -> str:
    """An identity that asks the seeder at the URL `first` before the one at `other`."""

    def turn(identity: str, url: str) -> bytes:
        return hashlib.sha256(f"{identity} {url}".encode()).digest()[:4]

    return next(i for i in map(str, range(100)) if turn(i, first) < turn(i, other))


async def test_another_seeder_is_asked_for_a_late_piece_and_the_late_seeder_is_avoided() -> None:
    async with (
        FakeHub(SNAPSHOT, faults=["slow:20"]) as slow,  # 250 seconds for a read
        FakeHub(SNAPSHOT) as quick,
        seeders(beginning_with(slow.url, quick.url)) as found,
        asyncio.timeout(PATIENCE),
    ):
        await found.update([endpoint(slow.url), endpoint(quick.url)])
        await read(found)
        await read(found)
        assert len(slow.asked(FILE.path)) == 1
        assert found.usable


async def test_a_late_seeder_is_waited_for_if_the_other_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_seeders, "AT_LEAST", 0.05)
    async with (
        FakeHub(SNAPSHOT, rate=20_000) as slow,
        FakeHub(SNAPSHOT, faults=["status:404"]) as broken,
        seeders(beginning_with(slow.url, broken.url)) as found,
    ):
        await found.update([endpoint(slow.url), endpoint(broken.url)])
        await read(found)
        assert broken.asked(FILE.path)


async def test_the_only_seeder_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_seeders, "AT_LEAST", 0.05)
    async with FakeHub(SNAPSHOT, rate=20_000) as slow, seeders() as found:
        await found.update([endpoint(slow.url)])
        await read(found)
        assert len(slow.asked(FILE.path)) == 1


@pytest.mark.parametrize(
    "nonsense",
    [
        endpoint(""),
        endpoint("/source"),
        endpoint("ftp://x.test"),
        endpoint("http://[::1"),
        endpoint("http://x.test", "a\nb: c"),
        endpoint("http://x.test", "tökén"),
        endpoint("http://\ud800.test"),
    ],
)
async def test_invalid_endpoints_are_ignored(nonsense: Endpoint) -> None:
    async with FakeHub(SNAPSHOT) as hub, seeders() as found:
        await found.update([nonsense])
        assert not found.usable
        await found.update([nonsense, endpoint(hub.url)])
        await read(found)


async def test_a_duplicate_seeder_counts_once() -> None:
    async with FakeHub(SNAPSHOT) as hub, seeders() as found:
        await found.update([endpoint(hub.url, "a"), endpoint(hub.url, "b", "rack-1")])
        await read(found)
        assert found.bytes_from_outside("rack-1") == 0


async def test_peers_begin_with_different_seeders() -> None:
    async with FakeHub(SNAPSHOT) as one, FakeHub(SNAPSHOT) as other:
        for number in range(12):
            async with seeders(f"10.0.0.{number}:6881") as found:
                await found.update([endpoint(one.url), endpoint(other.url)])
                await read(found)
        assert one.sent > 0
        assert other.sent > 0


async def test_bytes_from_other_zones_are_counted_over_all_seeders_so_far() -> None:
    async with FakeHub(SNAPSHOT) as near, FakeHub(SNAPSHOT) as away, seeders() as found:
        await found.update([endpoint(near.url, zone="rack-1")])
        await read(found)
        await found.update([endpoint(away.url, zone="rack-2")])
        await read(found)
        await read(found)
        assert found.bytes_from_outside("rack-1") == 2 * SIZE
        assert found.bytes_from_outside("rack-2") == SIZE


async def test_a_corrupt_seeder_is_named() -> None:
    async with FakeHub(SNAPSHOT, faults=["flip"]) as hub, seeders() as found:
        await found.update([endpoint(hub.url)])
        with pytest.raises((WrongBytes, Unavailable), match=f"seeder {hub.url}"):
            await read(found)


async def test_a_source_on_loopback_of_a_coordinator_elsewhere_is_not_asked() -> None:
    async with FakeHub(SNAPSHOT) as hub, seeders() as found:
        await found.update([Endpoint(hub.url, egress=PUBLIC.in_cluster("10.0.0.1"))])
        with pytest.raises(Unavailable, match=r"it leads to 127\.0\.0\.1, a loopback address"):
            await read(found)
        assert hub.requests == []
