"""Leases over real WebSockets: which peers are accepted, what they are sent, and that no peer delays another."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from urllib.parse import quote_from_bytes

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSCloseCode, WSMsgType

from p2pmodel.coordinator.leases import leases
from p2pmodel.coordinator.leases.demand import Complaint, Crossing, Demand
from p2pmodel.coordinator.leases.messages import CoordinatorMessage, demand_text, parse_message
from p2pmodel.coordinator.server import expected, sessions
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.catalog.publication import read_publication
from p2pmodel.coordinator.server.probes import ConnectionProbes
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.coordinator.tracker.announce_texts import pieces_in
from p2pmodel.coordinator.tracker.sources import Source, Sources
from p2pmodel.core.content.bitfield import bits_of
from p2pmodel.http.server import serving
from p2pmodel.swarm import bencode
from tests.support.coordinators import TOKEN, tokens
from tests.support.eventually import PATIENCE
from tests.support.node_swarm import assert_nothing_runs
from tests.support.torrent_files import SMALL, torrent_of

PUBLICATION = read_publication(torrent_of(SMALL, piece_length=16 << 10))
COUNT = PUBLICATION.piece_count
HASH = PUBLICATION.info_hash


class Peer:
    """One end of a WebSocket, by hand."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self.socket = socket

    async def update(self, *scarce: int, from_seeders: bool = True, want: int = 1, **fields: object) -> None:
        demand = Demand(bits_of(scarce), from_seeders=from_seeders, want=want, **fields)  # type: ignore[arg-type]
        await self.socket.send_str(demand_text(demand, COUNT))

    async def next_message(self) -> CoordinatorMessage:
        """The next message."""
        message = await self.socket.receive(PATIENCE)
        assert message.type is WSMsgType.TEXT, message
        return parse_message(message.data)

    async def until(self, met: Callable[[CoordinatorMessage], bool]) -> CoordinatorMessage:
        """The first message for which `met` holds."""
        async with asyncio.timeout(PATIENCE):
            while not met(answer := await self.next_message()):
                pass
        return answer

    async def granted(self, *pieces: int) -> CoordinatorMessage:
        return await self.until(lambda answer: answer.grant.pieces == pieces)


class Rig:
    """A coordinator with one torrent; `url` is its base URL for peers."""

    def __init__(self, url: str, session: ClientSession, sources: Sources) -> None:
        self.url = url
        self.session = session
        self.sources = sources

    @asynccontextmanager
    async def peer(self, info_hash: str = HASH, **query: str) -> AsyncIterator[Peer]:
        async with self.session.ws_connect(f"{self.url}/leases/{info_hash}", params=query, max_msg_size=0) as socket:
            yield Peer(socket)

    async def get_torrent(self) -> None:
        """Get the torrent from the catalog, as a node does that is about to join."""
        query = {"repo": str(PUBLICATION.repo), "revision": PUBLICATION.commit}
        async with self.session.get(f"{self.url}/catalog", params=query) as response:
            assert response.status == 200

    async def refused(self, path: str) -> tuple[int, str]:
        headers = {"Connection": "Upgrade", "Upgrade": "websocket"}
        async with self.session.get(self.url + path, headers=headers) as response:
            return response.status, (await response.json())["message"]


@asynccontextmanager
async def coordinator(
    token: str | None = None, *, budget: float = 0.0, grace: float = 0.5, probes: ConnectionProbes | None = None
) -> AsyncIterator[Rig]:
    catalog, sources = Catalog(), Sources(time.monotonic)
    await catalog.publish(PUBLICATION)
    app = coordinator_app(
        Tracker(probes=probes), catalog, credentials=tokens(token), sources=sources, origin_budget=budget
    )
    async with ClientSession() as session, serving(app, "127.0.0.1", 0, grace=grace) as base:
        yield Rig(base, session, sources)


async def test_peers_share_scarce_pieces_and_receive_the_seeders() -> None:
    async with coordinator() as rig, rig.peer() as one, rig.peer() as other:
        rig.sources.add(HASH, Source("http://s.test", "t0ken", "10.0.0.1:6881"))
        await one.update(0, 1)
        await one.granted(0)
        await other.update(0, 1)
        answer = await other.granted(1)
        assert answer.sources == (Source("http://s.test", "t0ken", "10.0.0.1:6881"),)
        assert answer.grant.peers == 2
        assert (await one.until(lambda answer: answer.grant.peers == 2)).grant.pieces == (0,)


async def test_a_peer_that_joins_while_the_seeder_is_gone_is_told_that_one_may_come_back() -> None:
    async with coordinator() as rig, rig.peer() as one:
        rig.sources.add(HASH, Source("http://s.test"))
        rig.sources.lose(HASH, "http://s.test")
        await one.update(0)
        answer = await one.granted(0)
        assert (answer.sources, answer.lost_source) == ((), True)


async def test_a_new_seeder_is_sent_also_with_unchanged_leases() -> None:
    async with coordinator() as rig, rig.peer() as one, rig.peer() as other:
        await one.update(0)
        await one.granted(0)
        await other.update(0)
        await one.until(lambda answer: answer.grant.peers == 2)
        rig.sources.add(HASH, Source("http://s.test", "t0ken"))
        await other.update(0)
        assert (await one.until(lambda answer: bool(answer.sources))).grant.pieces == (0,)


async def test_a_peer_is_not_told_that_it_is_alone_while_another_client_has_just_got_the_torrent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(expected, "WITHIN", 1000.0)
    async with coordinator() as rig:
        await rig.get_torrent()
        async with rig.peer() as one:
            await one.update(0)
            assert (await one.granted(0)).grant.peers == 1, "it got the torrent itself"
            await rig.get_torrent()
            await one.update(0)
            await one.until(lambda answer: answer.grant.peers == 2)


async def test_a_peer_is_not_told_that_it_is_alone_while_another_one_may_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(expected, "WITHIN", 1000.0)
    async with coordinator() as rig:
        async with rig.peer() as other:
            await other.update(0)
            await other.granted(0)
            async with rig.peer() as one:
                await one.update(1)
                await one.until(lambda answer: answer.grant.peers == 2)
        async with rig.peer() as one:
            await one.update(0)
            assert (await one.granted(0)).grant.peers == 1, "it may be the one that has left"
            async with rig.peer():
                pass
            await one.update(0, 1, want=2)
            assert (await one.granted(0, 1)).grant.peers == 2


async def test_without_changes_no_message_is_sent() -> None:
    async with coordinator() as rig, rig.peer() as peer:
        await peer.update(0, from_seeders=False)
        await peer.granted(0)
        for count in range(5):
            await peer.update(0, from_seeders=False, origin_bytes=count)
            await asyncio.sleep(2 * sessions.GATHER)
        await peer.update(from_seeders=False)
        assert (await peer.next_message()).grant.pieces == ()


async def test_a_change_of_the_peer_count_alone_sends_no_message() -> None:
    async with coordinator() as rig, rig.peer() as one, rig.peer() as other:
        await one.update(0, from_seeders=False)
        await one.granted(0)
        await other.update(0, from_seeders=False)
        assert (await one.next_message()).grant.peers == 2
        async with rig.peer() as third:
            await third.update(0, from_seeders=False)
            assert (await third.next_message()).grant.peers == 3
        await one.update(from_seeders=False)
        assert (await one.next_message()).grant.pieces == ()


async def test_many_peers_are_told_to_send_their_state_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "PEERS_A_HEARTBEAT", 1)
    async with coordinator() as rig, rig.peer(peer="a") as first:
        await first.update(0)
        assert (await first.granted(0)).heartbeats == 1
        async with rig.peer(peer="b") as second:
            await second.update(1)
            assert (await second.granted(1)).heartbeats == 2
            await first.until(lambda answer: answer.heartbeats == 2)


async def test_a_token_is_needed() -> None:
    async with coordinator(TOKEN) as rig:
        assert await rig.refused(f"/leases/{HASH}") == (401, "this coordinator requires its token")
        rig.session.headers["Authorization"] = f"Bearer {TOKEN}"
        async with rig.peer() as peer:
            await peer.update(0)
            await peer.granted(0)


@pytest.mark.parametrize("path", ["/leases/" + "0" * 64, "/leases/" + "0" * 40])
async def test_a_torrent_that_is_not_in_the_catalog(path: str) -> None:
    async with coordinator() as rig:
        assert await rig.refused(path) == (404, "no torrent with this info-hash is in this catalog")


async def test_a_hash_in_capitals_is_the_same() -> None:
    async with coordinator() as rig, rig.peer(HASH.upper()) as one, rig.peer() as other:
        await one.update(0)
        await one.granted(0)
        await other.update(0)
        assert (await other.next_message()).grant.peers == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "the message is not a JSON object"),
        ('{"want": 1}', "the message is not a peer's demand: KeyError('scarce')"),
    ],
)
async def test_an_invalid_message_ends_the_connection_with_a_reason(text: str, reason: str) -> None:
    async with coordinator() as rig, rig.peer() as liar, rig.peer() as honest:
        await liar.update(0)
        await liar.granted(0)
        await honest.update(0)
        await liar.socket.send_str(text)
        await honest.granted(0)
        while (message := await liar.socket.receive(PATIENCE)).type is WSMsgType.TEXT:
            pass
        assert (message.type, message.data, message.extra) == (
            WSMsgType.CLOSE,
            WSCloseCode.UNSUPPORTED_DATA,
            reason,
        )


@pytest.mark.parametrize("size", [10, (1 << 20) + 1])
async def test_bytes_and_endless_messages_end_the_connection(size: int) -> None:
    async with coordinator() as rig, rig.peer() as peer:
        await (peer.socket.send_bytes(b"x" * size) if size == 10 else peer.socket.send_str("x" * size))
        assert (await peer.socket.receive(PATIENCE)).type is WSMsgType.CLOSE


async def test_leases_of_a_broken_connection_go_to_another_peer_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "SILENCE", 2 * PATIENCE)
    async with coordinator() as rig, rig.peer() as lost, rig.peer() as heir:
        await lost.update(0)
        await lost.granted(0)
        await heir.update(0)
        assert (await heir.next_message()).grant.pieces == ()
        lost.socket._response.connection.transport.abort()  # type: ignore[union-attr]
        await heir.granted(0)


async def test_a_reconnect_with_the_same_id_replaces_the_connection() -> None:
    async with coordinator(budget=1.0) as rig, rig.peer(id="x") as old, rig.peer() as other:
        await old.update(0, 1, from_seeders=False)
        await old.granted(0)
        await old.update(1, from_seeders=False, origin_bytes=5)
        await old.granted(1)
        await other.update(from_seeders=False)
        async with rig.peer(id="x") as new:
            while (await old.socket.receive(PATIENCE)).type is WSMsgType.TEXT:
                pass
            await new.update(1, from_seeders=False, origin_bytes=5, leased=2)
            answer = await new.granted(1)
            assert (answer.grant.peers, answer.grant.origin_bytes) == (2, 5)


async def test_a_later_reconnect_with_the_same_id_is_counted_once() -> None:
    async with coordinator(budget=1.0) as rig, rig.peer() as other:
        await other.update(from_seeders=False)
        async with rig.peer(id="x") as peer:
            await peer.update(0, from_seeders=False)
            await peer.granted(0)
            await peer.update(from_seeders=False, origin_bytes=5)
            await peer.next_message()
        for _ in range(3):
            async with rig.peer(id="x") as peer:
                await peer.update(from_seeders=False, origin_bytes=5)
                assert (await peer.next_message()).grant.origin_bytes == 5


async def test_a_swarm_without_peers_is_removed() -> None:
    async with coordinator(budget=1.0) as rig:
        for _ in range(2):
            async with rig.peer() as peer:
                await peer.update(0, from_seeders=False)
                assert (await peer.granted(0)).grant.origin_bytes == 0
                await peer.update(from_seeders=False, origin_bytes=5)
                await peer.next_message()


async def test_a_full_swarm_refuses_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_PEERS", 1)
    async with coordinator() as rig, rig.peer() as peer:
        await peer.update(0)
        await peer.granted(0)
        assert await rig.refused(f"/leases/{HASH}") == (400, "this swarm has 1 peers already")


async def test_a_peer_that_does_not_read_delays_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SEND_TIMEOUT", 2 * PATIENCE)
    async with coordinator() as rig, rig.peer() as deaf, rig.peer() as other, not_reading(deaf):
        await more_than_sockets_hold(rig, deaf, other)
        deaf.socket._response.connection.transport.abort()  # type: ignore[union-attr]


async def test_a_peer_that_does_not_read_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SEND_TIMEOUT", 0.3)
    monkeypatch.setattr(expected, "WITHIN", 0.0)
    async with coordinator() as rig, rig.peer() as deaf, rig.peer() as other, not_reading(deaf):
        answer = await more_than_sockets_hold(rig, deaf, other)
        while answer.grant.peers == 2:
            answer = await next_after_heartbeat(other)


async def more_than_sockets_hold(rig: Rig, deaf: Peer, other: Peer) -> CoordinatorMessage:
    """Send both peers twenty messages of 1 MiB; the last one that `other` receives."""
    await deaf.update(0)
    for number in range(20):
        token = f"{number}".ljust(1 << 20)
        rig.sources.add(HASH, Source("http://s.test", token))
        await other.update(1)
        answer = await other.until(lambda answer, token=token: [each.token for each in answer.sources] == [token])
        with suppress(ConnectionResetError):
            await deaf.update(0)
    return answer


async def next_after_heartbeat(peer: Peer) -> CoordinatorMessage:
    """The next message to `peer`, after a heartbeat."""
    await peer.update(1)
    return await peer.next_message()


@asynccontextmanager
async def not_reading(peer: Peer) -> AsyncIterator[None]:
    """While this lasts, `peer` reads no messages."""
    transport = peer.socket._response.connection.transport  # type: ignore[union-attr]
    transport.pause_reading()
    yield
    transport.resume_reading()


async def test_a_coordinator_closes_its_connections_quickly() -> None:
    async with AsyncExitStack() as stack:
        async with coordinator() as rig:
            peers = [await stack.enter_async_context(rig.peer()) for _ in range(5)]
            for peer in peers:
                await peer.update(*range(COUNT))
            hearing = [asyncio.create_task(closing(peer)) for peer in peers]
            await asyncio.sleep(0.05)
        assert await asyncio.gather(*hearing) == [WSCloseCode.GOING_AWAY] * 5
    await assert_nothing_runs()


async def closing(peer: Peer) -> int | None:
    async for _ in peer.socket:
        pass
    return peer.socket.close_code


async def test_a_complaint_reaches_the_accused_peer_with_its_next_announce() -> None:
    catalog, tracker = Catalog(), Tracker()
    await catalog.publish(PUBLICATION)
    announce = f"info_hash={quote_from_bytes(bytes.fromhex(HASH)[:20])}&peer_id={'a' * 20}&port=6881"
    assert b"warning" not in tracker.announce(announce, "10.0.0.7")
    app = coordinator_app(tracker, catalog)
    async with ClientSession() as session, serving(app, "127.0.0.1", 0, grace=0.5) as base:
        rig = Rig(base, session, Sources(time.monotonic))
        async with rig.peer() as peer:
            bad = (Complaint(0, "10.0.0.7"), Complaint(COUNT, "10.0.0.7"), Complaint(1, "nonsense"))
            await peer.update(0, complaints=bad)
            await peer.granted(0)
    answer = bencode.decode(tracker.announce(announce, "10.0.0.7"))
    assert isinstance(answer, dict)
    assert pieces_in(bytes(answer[b"warning message"]).decode()) == (0,)  # type: ignore[arg-type]
    assert b"warning" not in tracker.announce(announce, "10.0.0.8")


async def test_nodes_of_two_zones_are_told_to_pull_from_each_other_once_the_coordinator_has_reached_them() -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    started = asyncio.start_server(serve, "127.0.0.1", 0)
    async with coordinator(probes=ConnectionProbes()) as rig, await started as server:
        port = str(server.sockets[0].getsockname()[1])
        async with (
            rig.peer(zone="a", pieces=port, peer="127.0.0.1:1", id="a") as one,
            rig.peer(zone="b", pieces=port, peer="127.0.0.1:2", id="b") as other,
            rig.peer(zone="b", pieces="1", peer="127.0.0.1:3", id="c") as unreachable,
        ):
            await one.update(1, held=1, token="t0ken")
            await other.update(0, 1)
            message = await other.until(lambda answer: bool(answer.grant.crossings))
            assert message.grant.crossings == (Crossing(0, f"127.0.0.1:{port}", "t0ken"),)
            await unreachable.update(0, 1)
            assert (await unreachable.next_message()).grant.crossings is None


async def test_a_node_beside_the_coordinator_is_named_by_its_port() -> None:
    async with (
        coordinator() as rig,
        rig.peer(zone="a", pieces="7", peer="10.0.0.1:1", id="a") as one,
        rig.peer(zone="b", pieces="7", peer="10.0.0.1:2", id="b") as other,
    ):
        await one.update(1, held=1)
        await other.update(0, 1)
        message = await other.until(lambda answer: bool(answer.grant.crossings))
        assert message.grant.crossings == (Crossing(0, ":7"),)
