"""Assemblies over real WebSockets: which peers may take part, which torrent results, how a wrong one is withdrawn."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSCloseCode, WSMsgType

from p2pmodel.config.sections.coordinator import QuotaSettings
from p2pmodel.coordinator.assembly import partial_torrents
from p2pmodel.coordinator.assembly.messages import (
    MAX_MANIFEST,
    PART,
    assembly_digest,
    in_parts,
    manifest_text,
    update_text,
)
from p2pmodel.coordinator.assembly.partial_torrents import assembly_layout, roots_in
from p2pmodel.coordinator.leases.demand import Demand
from p2pmodel.coordinator.leases.messages import CoordinatorMessage, parse_message
from p2pmodel.coordinator.server.app import PublicAddress, coordinator_app
from p2pmodel.coordinator.server.assembly_routes import ManifestTurns
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.catalog.catalog_folder import CatalogFolder
from p2pmodel.coordinator.server.catalog.publication import read_publication
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.coordinator.tokens import announce_url
from p2pmodel.core.content.bitfield import bits_of
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import NotFound
from p2pmodel.http.server import serving
from p2pmodel.swarm.torrents import build, parse
from tests.support.coordinators import PUBLISH_TOKEN, TOKEN, tokens
from tests.support.eventually import PATIENCE
from tests.support.node_swarm import assert_nothing_runs
from tests.support.torrent_files import SMALL, manifest_of, torrent_of, trees_of

MANIFEST = manifest_of(SMALL)
TEXT = manifest_text(MANIFEST)
LAYOUT = assembly_layout(MANIFEST)
ALL = frozenset(range(LAYOUT.piece_count))
TREES = trees_of(SMALL, LAYOUT.piece_length)
INFO_HASH = parse(build(MANIFEST, TREES)).info_hash
DIGEST = f"/assemblies/{assembly_digest(TEXT)}"


def root(piece: int) -> bytes:
    span = LAYOUT.span_of(piece)
    return TREES[span.path].piece_hash(piece - span.first_piece)


PUBLIC = "https://coordinator.test"


class Peer:
    """One end of a WebSocket, by hand."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self.socket = socket

    async def update(self, *here: int, want: int = 100, wrong: int = -1) -> None:
        roots = {piece: bytes(32) if piece == wrong else root(piece) for piece in here}
        demand = Demand(bits_of(ALL - set(here)), from_seeders=False, want=want)
        await self.socket.send_str(update_text(demand, LAYOUT.piece_count, roots))

    async def until(self, met: Callable[[CoordinatorMessage], object]) -> CoordinatorMessage:
        """The first message for which `met` holds."""
        while True:
            message = await self.socket.receive(PATIENCE)
            assert message.type is WSMsgType.TEXT, message
            if met(answer := parse_message(message.data)):
                return answer


class Rig:
    def __init__(self, url: str, session: ClientSession, catalog: Catalog) -> None:
        self.url = url
        self.session = session
        self.catalog = catalog

    @asynccontextmanager
    async def peer(self, text: str = TEXT, revision: str = "main") -> AsyncIterator[Peer]:
        async with self.session.ws_connect(self.url + DIGEST, params={"revision": revision}) as socket:
            await socket.send_str(text)
            yield Peer(socket)

    async def assemble(self, *, wrong: int = -1) -> str:
        """Assemble with one complete peer; returns the info-hash."""
        async with self.peer() as peer:
            await peer.update(*ALL, wrong=wrong)
            return (await peer.until(lambda answer: answer.assembled)).assembled

    async def delete(self, info_hash: str) -> int:
        async with self.session.delete(self.url + DIGEST, params={"info_hash": info_hash}) as response:
            return response.status


@asynccontextmanager
async def coordinator(folder: Path | None = None, address: str = "") -> AsyncIterator[Rig]:
    catalog = Catalog(CatalogFolder(folder) if folder else None)
    await catalog.load()
    app = coordinator_app(
        Tracker(),
        catalog,
        credentials=tokens(TOKEN),
        address=PublicAddress(address),
        quotas=QuotaSettings(assemblies_per_address=1),
    )
    headers = {"Authorization": f"Bearer {PUBLISH_TOKEN}"}
    async with ClientSession(headers=headers) as session, serving(app, "127.0.0.1", 0, grace=0.5) as base:
        yield Rig(base, session, catalog)
    await assert_nothing_runs()


async def test_all_roots_make_the_torrent_that_a_seeder_would_make() -> None:
    async with coordinator(address=PUBLIC) as rig, rig.peer() as one, rig.peer(revision="v1") as other:
        await one.update(want=2)
        mine = (await one.until(lambda answer: answer.grant.pieces)).grant.pieces
        await other.update()
        theirs = set((await other.until(lambda answer: answer.grant.peers == 2)).grant.pieces)
        assert not theirs & set(mine)
        await one.update(*mine)
        await other.update(*ALL - set(mine))
        answers = [await peer.until(lambda answer: answer.assembled) for peer in (one, other)]
        assert {answer.assembled for answer in answers} == {INFO_HASH}
        publication = rig.catalog.by_info_hash(INFO_HASH)
        assert rig.catalog.revisions(publication) == ["main", "v1"]
        assert parse(publication.raw).trackers == (announce_url(PUBLIC, TOKEN),)
        assert parse(publication.raw).trees == TREES


async def test_pieces_with_roots_become_a_partial_torrent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_torrents, "MIN_BYTES", 1)
    async with coordinator(address=PUBLIC) as rig, rig.peer() as one, rig.peer() as other:
        await one.update()
        await other.update()
        await other.until(lambda answer: answer.grant.peers == 2)
        await one.update(0)
        for peer in (one, other):
            (info_hash,) = (await peer.until(lambda answer: answer.partial_torrents)).partial_torrents
        async with rig.session.get(f"{rig.url}{DIGEST}/{info_hash}.torrent") as answer:
            partial = parse(await answer.read())
        assert (partial.info_hash, partial.manifest) == (info_hash, MANIFEST)
        assert partial.trackers == (announce_url(PUBLIC, TOKEN),)
        assert roots_in(LAYOUT, partial.trees) == {0: root(0)}
        async with rig.session.get(f"{rig.url}{DIGEST}/{'0' * 64}.torrent") as answer:
            assert answer.status == 404


async def test_a_torrent_that_is_in_the_catalog_is_reported_at_once() -> None:
    async with coordinator() as rig:
        await rig.catalog.publish(read_publication(torrent_of(SMALL)))
        async with rig.peer() as peer:
            await peer.update()
            assert (await peer.until(lambda answer: True)).assembled == INFO_HASH


async def test_a_seeder_that_publishes_meanwhile_ends_the_assembly() -> None:
    async with coordinator() as rig, rig.peer() as peer:
        await peer.update()
        await peer.until(lambda answer: answer.grant.pieces)
        await rig.catalog.publish(read_publication(torrent_of(SMALL)))
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            await peer.update()
            try:
                message = await peer.socket.receive(0.2)
            except TimeoutError:
                continue
            if parse_message(message.data).assembled == INFO_HASH:
                return
        raise AssertionError("the message did not come")


@pytest.mark.parametrize("text", [TEXT + " ", "{}", manifest_text(manifest_of(SMALL, private=True))])
async def test_the_manifest_must_be_that_of_the_address(text: str) -> None:
    async with coordinator() as rig, rig.peer(text) as peer:
        message = await peer.socket.receive(PATIENCE)
        assert (message.type, message.data) == (WSMsgType.CLOSE, WSCloseCode.UNSUPPORTED_DATA)


async def test_a_long_manifest_comes_in_parts_and_has_a_bound() -> None:
    files = {f"{number:06}": b"" for number in range(4000)} | SMALL
    manifest = manifest_of(files)
    parts = in_parts(manifest_text(manifest))
    assert len(parts) > 1
    path = f"/assemblies/{assembly_digest(manifest_text(manifest))}"
    async with coordinator() as rig, rig.session.ws_connect(rig.url + path) as socket:
        for part in parts:
            await socket.send_str(part)
        peer = Peer(socket)
        await peer.update()
        assert (await peer.until(lambda answer: answer.left)).left
    async with coordinator() as rig, rig.session.ws_connect(rig.url + DIGEST) as socket:
        for _ in range(MAX_MANIFEST // PART + 1):
            await socket.send_str("x" * PART)
        message = await socket.receive(PATIENCE)
        assert (message.type, message.data) == (WSMsgType.CLOSE, WSCloseCode.UNSUPPORTED_DATA)


async def test_one_address_leaves_turns_to_others() -> None:
    turns = ManifestTurns()
    order: list[str] = []

    async def take(address: str, name: str) -> None:
        async with turns.of(address):
            order.append(name)
            await held.wait()

    held = asyncio.Event()
    tasks = [asyncio.create_task(take("10.0.0.1", f"first {n}")) for n in range(20)]
    tasks += [asyncio.create_task(take(f"10.0.1.{n}", f"other {n}")) for n in range(6)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sorted(order) == ["first 0", "first 1", *(f"other {n}" for n in range(6))]
    held.set()
    await asyncio.gather(*tasks)
    assert len(order) == 26


async def test_a_wrong_torrent_is_withdrawn_and_its_snapshot_has_no_assembly_for_a_while() -> None:
    async with coordinator() as rig:
        wrong = await rig.assemble(wrong=0)
        assert wrong != INFO_HASH
        assert await rig.delete(INFO_HASH) == 404
        assert [await rig.delete(wrong) for _ in range(2)] == [204, 204]
        with pytest.raises(NotFound):
            rig.catalog.find(Reference(MANIFEST.repo))
        async with rig.session.get(rig.url + DIGEST) as response:
            assert response.status == 409


async def test_without_a_token_no_client_takes_part_or_withdraws() -> None:
    async with coordinator() as rig, ClientSession() as stranger:
        assembled = await rig.assemble()
        for method in ("GET", "DELETE"):
            async with stranger.request(method, rig.url + DIGEST, params={"info_hash": assembled}) as response:
                assert response.status == 401


async def test_one_address_begins_a_bounded_number_of_assemblies() -> None:
    async with coordinator() as rig, rig.peer() as peer:
        await peer.update()
        await peer.until(lambda answer: answer.grant.pieces)
        async with rig.session.get(f"{rig.url}/assemblies/{'0' * 64}") as response:
            assert response.status == 429


async def test_an_assembly_moves_no_name_of_a_publisher() -> None:
    async with coordinator() as rig:
        other = read_publication(torrent_of(SMALL, commit="b" * 40))
        await rig.catalog.publish(other, ["main"])
        assert await rig.assemble() == INFO_HASH
        assert rig.catalog.find(Reference(MANIFEST.repo)).commit == other.commit


async def test_a_publisher_replaces_what_members_assembled_wrongly() -> None:
    async with coordinator() as rig:
        assert await rig.assemble(wrong=0) != INFO_HASH
        async with rig.session.put(f"{rig.url}/catalog", data=torrent_of(SMALL)) as response:
            assert response.status == 201
        assert [each.info_hash for each in rig.catalog.publications()] == [INFO_HASH]


async def test_a_torrent_confirmed_by_a_seeder_stays() -> None:
    async with coordinator() as rig:
        assert await rig.assemble() == INFO_HASH
        async with rig.session.put(f"{rig.url}/catalog", data=torrent_of(SMALL)) as response:
            assert response.status == 201
        assert await rig.delete(INFO_HASH) == 404
        assert rig.catalog.by_info_hash(INFO_HASH)


async def test_a_withdrawn_torrent_can_be_published_again_after_a_restart(tmp_path: Path) -> None:
    async with coordinator(tmp_path) as rig:
        await rig.assemble()
    async with coordinator(tmp_path) as rig:
        assert await rig.delete(INFO_HASH) == 204
    assert os.listdir(tmp_path) == ["catalog.json"]  # noqa: PTH208
    async with coordinator(tmp_path) as rig:
        await rig.catalog.publish(read_publication(torrent_of(SMALL)))
        assert await rig.delete(INFO_HASH) == 404
