"""A complete node becomes a source, once no peer downloads from it in the swarm and a coordinator has its URL."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from p2pmodel.coordinator.catalog_messages import MAX_OF_OWNER
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.catalog.publication import read_publication
from p2pmodel.coordinator.server.catalog.signatures import SignatureStore
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.coordinator.tracker.sources import Source, Sources
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.pace import Pace
from p2pmodel.http.server import serving
from p2pmodel.node.private.membership import PublicSwarm, SwarmMembership
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.seed import web_seed as module
from p2pmodel.node.seed.web_seed import WebSeedOffer
from p2pmodel.node.snapshot.evidence.signatures import KeptSignatures
from p2pmodel.swarm.engine import SwarmStatus
from p2pmodel.swarm.metainfo import Metainfo
from p2pmodel.trust.signatures.signing_key import read_signing_key
from p2pmodel.trust.signatures.statement import SignedStatement, Statement
from tests.support.coordinators import PUBLISHERS, client
from tests.support.eventually import eventually
from tests.support.node_swarm import Swarm, assert_nothing_runs

FOREIGN = "http://foreign.test/announce"
CLOSED = "http://127.0.0.1:1"
SOURCE = Source("http://127.0.0.2:7", "t0ken", "127.0.0.2:8", "rack1")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECK_EVERY", 0.01)
    monkeypatch.setattr(module, "IDLE_FOR", 0.05)


class FakeWebSeed:
    def __init__(self) -> None:
        self.offered: list[Manifest] = []

    @asynccontextmanager
    async def offering(self, manifest: Manifest, membership: PublicSwarm | SwarmMembership) -> AsyncIterator[None]:
        assert not membership.private
        self.offered.append(manifest)
        try:
            yield
        finally:
            self.offered.remove(manifest)

    def sent(self, manifest: Manifest) -> int:
        return 5

    def source(self, coordinator: str, manifest: Manifest) -> Source:
        return SOURCE

    pace = Pace()


class Torrent:
    trackers: tuple[str, ...] = ()
    uploaded = 0

    def status(self) -> SwarmStatus:
        return SwarmStatus(frozenset(), (), 0, 0, 0, self.uploaded, 0, 0, 0)

    def set_trackers(self, trackers: tuple[str, ...]) -> None:
        self.trackers = trackers


class Node:
    def __init__(self, metainfo: Metainfo, *coordinators: str, zone: str = "") -> None:
        self.metainfo, self.web_seed, self.torrent = metainfo, FakeWebSeed(), Torrent()
        self.offer = WebSeedOffer(
            self.web_seed,
            self.torrent,  # type: ignore[arg-type]
            metainfo,
            Reporter(),
            coordinators=list(map(client, coordinators)),
            trackers=[*(f"{client(url).announce_url}{zone}" for url in coordinators), FOREIGN],
        )

    @asynccontextmanager
    async def offering(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.offer.run())
        yield
        task.cancel()
        await asyncio.wait({task})
        assert self.web_seed.offered == []


@pytest.fixture
def metainfo(tmp_path: Path) -> Metainfo:
    return Swarm(tmp_path).metainfo


@asynccontextmanager
async def coordinator(
    catalog: Catalog | None = None, signatures: SignatureStore | None = None
) -> AsyncIterator[tuple[str, Sources]]:
    sources = Sources(time.monotonic)
    app = coordinator_app(
        Tracker(), catalog or Catalog(), credentials=PUBLISHERS, sources=sources, signatures=signatures
    )
    async with serving(app, "127.0.0.1", 0, grace=0.2) as url:
        yield url, sources


async def test_the_coordinator_receives_the_source_before_the_trackers(metainfo: Metainfo) -> None:
    async with coordinator() as (url, sources):
        node = Node(metainfo, url, CLOSED, zone="?zone=a")
        async with node.offering():
            await eventually(lambda: bool(node.torrent.trackers), what="it is a source")
            assert sources.of(metainfo.info_hash) == (SOURCE,)
            # A tracker of another coordinator, which has no source, must continue to list this node as a peer.
            source = f"{client(url).announce_url}?zone=a&role=source"
            assert node.torrent.trackers == (source, f"{client(CLOSED).announce_url}?zone=a", FOREIGN)
            assert node.web_seed.offered == [metainfo.manifest]
            assert node.offer.sent == 5
    await assert_nothing_runs()


async def test_a_node_with_downloaders_in_the_swarm_stays_a_peer(metainfo: Metainfo) -> None:
    async with coordinator() as (url, sources):
        node = Node(metainfo, url)
        async with node.offering():
            for _ in range(20):
                node.torrent.uploaded += 1
                await asyncio.sleep(0.01)
            assert node.web_seed.offered == []
            assert sources.of(metainfo.info_hash) == ()
            await eventually(lambda: bool(node.torrent.trackers), what="left alone, it is a source")


async def test_a_coordinator_that_is_away_leaves_it_an_ordinary_peer(metainfo: Metainfo) -> None:
    node = Node(metainfo, CLOSED)
    async with node.offering():
        await eventually(lambda: bool(node.web_seed.offered), what="it would be a source")
        await asyncio.sleep(0.1)
        assert node.torrent.trackers == ()


def statement(metainfo: Metainfo, folder: Path, info_hash: str, commit: str | None = None) -> SignedStatement:
    """Signed by a new key."""
    path = folder / f"key-{info_hash[:8]}-{commit}"
    form = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    path.touch(mode=0o600)
    path.write_bytes(Ed25519PrivateKey.generate().private_bytes(*form))
    manifest = replace(metainfo.manifest, commit=commit or metainfo.manifest.commit)
    return SignedStatement.by(read_signing_key(path), Statement.over(manifest, info_hash, time.time()))


async def test_a_coordinator_that_lost_torrent_and_signatures_gets_both_back(
    metainfo: Metainfo, tmp_path: Path
) -> None:
    signed = statement(metainfo, tmp_path, metainfo.info_hash)
    whole, kept = Catalog(), SignatureStore()
    await whole.publish(read_publication(metainfo.raw))
    await kept.publish("another seeder", signed)
    lost, without = SignatureStore(), SignatureStore()
    listed = Catalog()
    await listed.publish(read_publication(metainfo.raw))
    async with (
        coordinator(whole, kept) as (first, _),
        coordinator(None, lost) as (second, sources),
        coordinator(listed, without) as (third, _),
    ):
        node = Node(metainfo, first, second, third)
        async with node.offering():
            of = metainfo.manifest.repo, metainfo.manifest.commit
            await eventually(lambda: bool(sources.of(metainfo.info_hash)), what="the torrent is there again")
            assert lost.over(*of) == (signed,)
            await eventually(lambda: without.over(*of) == (signed,), what="signatures alone are there again, too")
        assert kept.over(*of) == (signed,)


async def test_what_came_with_a_torrent_is_published_as_far_as_it_is_over_it(
    metainfo: Metainfo, tmp_path: Path
) -> None:
    ours, files = (statement(metainfo, tmp_path, each) for each in (metainfo.info_hash, ""))
    other = statement(metainfo, tmp_path, "1" * 64)
    older = statement(metainfo, tmp_path, metainfo.info_hash, "1" * 40)
    forged = SignedStatement(ours.statement, files.signature)
    malformed = SignedStatement("{}", "no signature")
    kept = KeptSignatures(metainfo, (malformed, forged, other, older, ours, files, ours))
    assert await kept.known() == (ours, files)
    many = tuple(statement(metainfo, tmp_path, metainfo.info_hash, None) for _ in range(MAX_OF_OWNER + 1))
    assert await KeptSignatures(metainfo, many).known() == many[:MAX_OF_OWNER]
