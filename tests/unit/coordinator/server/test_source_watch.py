"""Sources are used while leaseholders can connect to them; a peer that is no source any more exchanges as others do."""

import asyncio
from urllib.parse import quote_from_bytes

import pytest

from p2pmodel.coordinator.server import source_watch as module
from p2pmodel.coordinator.server.probes import BAD_FOR, GOOD_FOR, ConnectionProbes
from p2pmodel.coordinator.server.source_watch import SourceWatch
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.coordinator.tracker.sources import Source, Sources
from p2pmodel.errors import Unavailable
from p2pmodel.swarm import bencode
from tests.support.eventually import eventually

NAME = "ab" * 32
HASH = bytes.fromhex(NAME)[:20]
NODE = "10.0.0.7"
SOURCE = Source(f"http://{NODE}:6882", "t", f"{NODE}:6881")
LISTED = bytes([10, 0, 0, 7, 0x1A, 0xE1])


class Rig:
    """A coordinator with a source, a leaseholder at 10.0.0.9, and connections that fail with `failure`."""

    def __init__(self) -> None:
        self.now, self.failure = 1000.0, ""
        self.tried: list[tuple[str, int]] = []
        self.sources = Sources(lambda: self.now)
        self.tracker = Tracker(clock=lambda: self.now, probes=ConnectionProbes(lambda: self.now, self.connect))
        self.watch = SourceWatch(self.sources, self.tracker)

    async def connect(self, host: str, port: int) -> str:
        self.tried.append((host, port))
        return self.failure

    def announce(self, peer: str, host: str, role: str) -> bytes:
        """The peers that are listed to that client."""
        query = f"info_hash={quote_from_bytes(HASH)}&peer_id={peer * 20}&port=6881&role={role}"
        answer = bencode.decode(self.tracker.announce(query, host))
        assert isinstance(answer, dict)
        assert isinstance(answer[b"peers"], bytes)
        return answer[b"peers"]

    def leaseholder(self) -> bytes:
        return self.announce("b", "10.0.0.9", "leaseholder")

    async def name(self, source: Source = SOURCE, client: str = NODE) -> None:
        await self.watch.add(NAME, source, client, by=client)


async def test_a_source_that_fails_is_dropped_and_its_peer_is_listed_once_it_announces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "EVERY", 0.01)
    rig = Rig()
    await rig.name()
    rig.announce("a", NODE, "source")
    assert rig.leaseholder() == b""
    changes: list[str] = []
    following = asyncio.create_task(rig.watch.follow(NAME, lambda: changes.append("changed")))
    await eventually(lambda: len(rig.tried) > 2, what="it is tried again and again")
    assert (rig.sources.of(NAME), changes) == ((SOURCE,), [])
    rig.failure = "timed out"
    await eventually(lambda: bool(changes), what="the change")
    assert rig.sources.of(NAME) == ()
    assert rig.leaseholder() == b"", "it may have gone, and peers would keep its address"
    rig.announce("a", NODE, "source")
    assert rig.leaseholder() == LISTED, "whatever role it still announces"
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)

    rig.failure, rig.now = "", rig.now + BAD_FOR
    await rig.name()
    rig.announce("a", NODE, "source")
    assert rig.sources.of(NAME) == (SOURCE,)
    assert rig.leaseholder() == b""


async def test_a_source_that_cannot_be_reached_is_refused_with_what_to_set() -> None:
    rig = Rig()
    rig.failure = "connection refused"
    rig.announce("a", NODE, "source")
    with pytest.raises(Unavailable, match=r"10\.0\.0\.7:6882 \(connection refused\); open that .*swarm\.advertise"):
        await rig.name()
    assert rig.sources.of(NAME) == ()
    assert not rig.sources.lost(NAME)
    assert rig.leaseholder() == LISTED


@pytest.mark.parametrize("endpoint", ["http://10.0.0.8:80", "http://name.test:6882", "http://[::1]:5"])
async def test_no_member_makes_the_coordinator_connect_to_another_machine(endpoint: str) -> None:
    rig = Rig()
    rig.failure = "connection refused"
    await rig.name(Source(endpoint, "t", f"{NODE}:6881"))
    assert rig.tried == []
    assert [source.endpoint for source in rig.sources.of(NAME)] == [endpoint]
    assert rig.sources.named(NAME) == []


async def test_a_source_that_was_reached_a_moment_ago_is_tried_when_it_is_named_again() -> None:
    rig = Rig()
    await rig.name()
    rig.now += GOOD_FOR / 2
    rig.failure = "timed out"
    with pytest.raises(Unavailable):
        await rig.name()
    assert len(rig.tried) == 2


async def test_a_source_that_starts_again_at_once_is_a_source_at_once() -> None:
    """Else leaseholders would know it as a peer, and download from it beside their leases."""
    rig = Rig()
    rig.failure = "connection refused"
    with pytest.raises(Unavailable):
        await rig.name()
    rig.failure = ""
    await rig.name()
    rig.announce("a", NODE, "source")
    assert rig.sources.of(NAME) == (SOURCE,)
    assert rig.leaseholder() == b""


async def test_a_source_that_died_is_a_source_when_it_announces_before_it_is_named_again() -> None:
    rig = Rig()
    await rig.name()
    rig.announce("a", NODE, "source")
    rig.failure = "connection refused"
    await rig.watch._look(NAME)
    assert rig.sources.lost(NAME), "nodes that join meanwhile announce as leaseholders"
    rig.leaseholder()
    assert rig.announce("z", NODE, "source") == b"", "it would connect to all leaseholders"
    assert rig.leaseholder() == b""
