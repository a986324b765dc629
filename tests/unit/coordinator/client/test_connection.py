"""A peer's connection to its coordinators: which one it uses, what it receives, and that none can stop or break it."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from p2pmodel.coordinator.client import connection
from p2pmodel.coordinator.client.connection import CoordinatorConnection
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.leases.demand import Demand, Grant
from p2pmodel.coordinator.leases.messages import (
    CoordinatorMessage,
    demand_text,
    lease_path,
    message_text,
    parse_demand,
)
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.catalog.publication import read_publication
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.coordinator.tracker.sources import Sources
from p2pmodel.core.tasks import companions
from p2pmodel.http.server import serving
from tests.support.eventually import PATIENCE, eventually
from tests.support.node_swarm import assert_nothing_runs
from tests.support.torrent_files import SMALL, torrent_of

PUBLICATION = read_publication(torrent_of(SMALL, piece_length=16 << 10))
CLOSED = "http://127.0.0.1:1"
Handler = Callable[[web.WebSocketResponse, web.Request], Awaitable[None]]


@asynccontextmanager
async def coordinator(*, port: int = 0) -> AsyncIterator[str]:
    catalog = Catalog()
    await catalog.publish(PUBLICATION)
    app = coordinator_app(Tracker(), catalog, sources=Sources(time.monotonic))
    async with serving(app, "127.0.0.48", port, grace=0.2) as base:
        yield base


@asynccontextmanager
async def serving_sockets(handler: Handler) -> AsyncIterator[str]:
    """A coordinator that does what `handler` does with each connection."""

    async def handle(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(timeout=0.1)
        await socket.prepare(request)
        with contextlib.suppress(ConnectionError, RuntimeError):
            await handler(socket, request)
        return socket

    app = web.Application()
    app.router.add_get("/leases/{info_hash}", handle)
    async with serving(app, "127.0.0.1", 0, grace=0.1) as base:
        yield base


async def mute(socket: web.WebSocketResponse, _request: web.Request) -> None:
    async for _ in socket:
        pass


def sending(text: str) -> Handler:
    async def send(socket: web.WebSocketResponse, _request: web.Request) -> None:
        await socket.send_str(text)
        await mute(socket, _request)

    return send


class Client:
    """A leaseholder of one swarm that lacks piece 0 at first; `received` has each change of its connection."""

    def __init__(self, *coordinators: str, timeout: float = 0.5) -> None:
        self.lacks = 1
        self.received: list[tuple[str, CoordinatorMessage | None]] = []
        self.connection = CoordinatorConnection(
            tuple(map(Coordinator, coordinators)),
            lease_path(PUBLICATION.info_hash),
            peer="10.0.0.1:6881",
            timeout=timeout,
        )

    def opening(self) -> Sequence[str]:
        return ()

    def message(self) -> str:
        return demand_text(Demand(self.lacks, from_seeders=False), PUBLICATION.piece_count)

    async def _follow(self) -> None:
        while True:
            await self.connection.next_change()
            at = self.connection.coordinator
            self.received.append((at.url if at else "", self.connection.message))

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Client"]:
        async with companions() as start:
            start(self._follow())
            start(self.connection.run(self))
            yield self

    @property
    def pieces(self) -> tuple[int, ...] | None:
        return self.connection.grant.pieces if self.connection.grant else None

    async def until(self, met: Callable[[], bool], what: str) -> None:
        await eventually(met, what=f"{what}: {self.received}")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "RECONNECT", 0.05)


async def test_it_sends_its_demand_and_receives_its_leases() -> None:
    async with coordinator() as url, Client(url).running() as client:
        await client.connection.answered()
        await client.until(lambda: client.pieces == (0,), "piece 0 is leased")
        client.lacks = 2
        client.connection.changed()
        await client.until(lambda: client.pieces == (1,), "piece 1 is leased")
    await assert_nothing_runs()


async def test_a_redirect_is_not_followed() -> None:
    async def redirect(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": f"{target}{lease_path(PUBLICATION.info_hash)}"})

    app = web.Application()
    app.router.add_get("/{tail:.*}", redirect)
    reached: list[str] = []

    async def note(socket: web.WebSocketResponse, request: web.Request) -> None:
        reached.append(request.path)
        await mute(socket, request)

    async with (
        serving_sockets(note) as target,
        serving(app, "127.0.0.1", 0, grace=0.1) as url,
        Client(url).running() as client,
    ):
        await client.connection.answered()
        assert client.connection.message is None
    assert reached == []


async def test_it_sends_heartbeats_and_sends_changes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEARTBEAT", 0.1)
    scarce: list[int] = []

    async def listen(socket: web.WebSocketResponse, _request: web.Request) -> None:
        async for message in socket:
            scarce.append(parse_demand(message.data).scarce)
            await socket.send_str(message_text(CoordinatorMessage(Grant())))

    async with serving_sockets(listen) as url, Client(url).running() as client:
        await client.until(lambda: len(scarce) >= 3, f"a heartbeat: {scarce}")
        monkeypatch.setattr(connection, "HEARTBEAT", 60.0)
        client.lacks = 2
        client.connection.changed()
        await client.until(lambda: scarce[-1] == 2, f"news: {scarce}")


async def test_it_sends_heartbeats_as_often_as_the_coordinator_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEARTBEAT", 0.3)
    came: list[float] = []

    async def listen(socket: web.WebSocketResponse, _request: web.Request) -> None:
        async for _message in socket:
            came.append(asyncio.get_running_loop().time())
            await socket.send_str(message_text(CoordinatorMessage(Grant(), heartbeats=3)))

    async with serving_sockets(listen) as url, Client(url).running() as client:
        await client.until(lambda: len(came) >= 3, f"a heartbeat: {came}")
    assert min(late - early for early, late in itertools.pairwise(came[1:])) > 0.7


async def test_its_id_stays_the_same_over_connections() -> None:
    names: list[dict[str, str]] = []

    async def note(_socket: web.WebSocketResponse, request: web.Request) -> None:
        names.append(dict(request.query))

    async with serving_sockets(note) as url, Client(url).running() as one, Client(url).running():
        await one.until(lambda: len(names) >= 6, f"several connections: {names}")
    assert {name["peer"] for name in names} == {"10.0.0.1:6881"}
    assert len({name["id"] for name in names}) == 2


@pytest.mark.parametrize(
    "handler",
    [mute, sending("nonsense"), sending("{}"), sending('{"grant": 1}')],
    ids=["mute", "nonsense", "empty", "wrong"],
)
async def test_a_coordinator_that_gives_no_leases_is_skipped(handler: Handler) -> None:
    async with (
        serving_sockets(handler) as bad,
        coordinator() as good,
        Client(bad, good, timeout=0.3).running() as client,
    ):
        await client.until(lambda: client.pieces == (0,), "the next one is asked")
        assert client.connection.coordinator == Coordinator(good)


@pytest.mark.parametrize("coordinators", [(), (CLOSED,), (CLOSED, "nonsense", "ftp://x.test", "http://[::1")])
async def test_unreachable_coordinators_are_detected_soon(coordinators: tuple[str, ...]) -> None:
    async with Client(*coordinators, timeout=2 * PATIENCE).running() as client:
        async with asyncio.timeout(PATIENCE):
            await client.connection.answered()
        assert client.connection.message is None
    await assert_nothing_runs()


async def test_a_coordinator_without_leases_answers_in_vain() -> None:
    async with serving(web.Application(), "127.0.0.1", 0) as url, Client(url, timeout=2 * PATIENCE).running() as client:
        async with asyncio.timeout(PATIENCE):
            await client.connection.answered()
        assert client.pieces is None


async def test_mute_coordinators_are_waited_for_once_however_many_there_are() -> None:
    async with serving_sockets(mute) as url, Client(*[url] * 200, timeout=0.5).running() as client:
        async with asyncio.timeout(PATIENCE):
            await client.connection.answered()


async def test_a_coordinator_that_restarts_is_found_again() -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with coordinator() as url:
            client = await stack.enter_async_context(Client(url).running())
            await client.until(lambda: client.pieces == (0,), "piece 0 is leased")
        await client.until(lambda: client.received[-1] == (url, None), "that it is gone")
        async with coordinator(port=int(url.rpartition(":")[2])):
            await client.until(lambda: client.pieces == (0,), "piece 0 is leased again")
    await assert_nothing_runs()


async def test_the_next_one_takes_over_at_once() -> None:
    async with coordinator() as second, contextlib.AsyncExitStack() as stack:
        async with coordinator() as first:
            client = await stack.enter_async_context(Client(first, second).running())
            await client.until(lambda: client.pieces == (0,), "piece 0 is leased")
            assert client.connection.coordinator == Coordinator(first)
        await client.until(
            lambda: client.connection.coordinator == Coordinator(second) and client.pieces == (0,), "the second one"
        )


async def test_silence_after_the_first_message_is_no_failure() -> None:
    message = CoordinatorMessage(Grant((0,)))
    async with serving_sockets(sending(message_text(message))) as url, Client(url, timeout=0.1).running() as client:
        await client.until(lambda: client.pieces == (0,), "piece 0 is leased")
        await asyncio.sleep(0.3)
        assert client.received == [(url, message)]


async def test_the_time_alone_and_the_time_without_a_coordinator_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(connection.time, "monotonic", lambda: now)
    connected = CoordinatorConnection((), "/leases/x", peer="10.0.0.1:6881", timeout=1)
    assert (connected.peers, connected.grant, connected.sources) == (0, None, ())
    assert (connected.alone_for(105), connected.lost_for(105)) == (0, 5)
    now = 110.0
    connected._update(CoordinatorMessage(Grant((1,), peers=1)))
    assert (connected.alone_for(112), connected.lost_for(112)) == (2, 0)
    now = 120.0
    connected._update(CoordinatorMessage(Grant((2,), peers=1)))
    assert connected.alone_for(121) == 11
    connected._update(CoordinatorMessage(Grant((2,), peers=3)))
    assert (connected.peers, connected.alone_for(125), connected.lost_for(125)) == (3, 0, 0)
    connected._update(CoordinatorMessage(Grant((2,), peers=1)))
    assert connected.alone_for(125) == 5
    now = 130.0
    connected._update(None)
    assert (connected.alone_for(131), connected.lost_for(131)) == (0, 1)
