"""The pool of outgoing HTTP connections: shared by sessions, closed once."""

import gzip

import pytest
from aiohttp import ClientConnectorError, ClientTimeout, ThreadedResolver, web

from p2pmodel.core.network.egress import PUBLIC, Egress
from p2pmodel.core.network.listeners import listening
from p2pmodel.http_pool import ForbiddenAddress, HttpPool, PeerResponse, read_bounded, session


async def served(connections: set[int]) -> tuple[web.AppRunner, str]:
    async def handle(request: web.Request) -> web.Response:
        connections.add(id(request.transport))
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}/"


async def test_sessions_share_connections_and_leave_the_pool_open():
    connections: set[int] = set()
    runner, url = await served(connections)
    async with HttpPool() as pool:
        for seconds in (5, 10):
            async with session(pool, timeout=ClientTimeout(total=seconds)) as shared, shared.get(url) as response:
                assert await response.text() == "ok"
        assert not pool.connector().closed
    await runner.cleanup()
    assert len(connections) == 1


async def test_a_pool_can_be_opened_again():
    connections: set[int] = set()
    runner, url = await served(connections)
    pool = HttpPool()
    for _ in range(2):
        async with pool, session(pool) as shared, shared.get(url) as response:
            assert response.status == 200
    await runner.cleanup()


async def test_without_a_pool_a_session_has_its_own_connections():
    connections: set[int] = set()
    runner, url = await served(connections)
    async with session(None) as own, own.get(url) as response:
        assert response.status == 200
    assert own.connector is None or own.connector.closed
    await runner.cleanup()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_rule_is_applied_to_the_address_that_is_connected_to(host: str):
    connections: set[int] = set()
    runner, url = await served(connections)
    url = url.replace("127.0.0.1", host)
    async with HttpPool() as pool:
        async with session(pool) as named, named.get(url) as response:
            await response.read()
        # The open connection of the other session is not reused under this rule.
        async with session(pool, egress=PUBLIC) as strict:
            with pytest.raises(ClientConnectorError) as caught:
                await strict.get(url)
        assert isinstance(caught.value.os_error, ForbiddenAddress)
        assert "loopback address" in caught.value.os_error.strerror
        async with session(pool, egress=Egress.parse(["127.0.0.0/8"])) as admitted, admitted.get(url) as response:
            assert response.status == 200
    await runner.cleanup()


async def test_a_name_that_changes_its_address_after_a_check_is_refused():
    """The resolver of the connector answers with a private address: the check is after it."""

    class Rebinding(ThreadedResolver):
        async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[dict[str, object]]:
            found = await super().resolve("127.0.0.1", port, family)
            return [entry | {"hostname": host} for entry in found]

    connections: set[int] = set()
    runner, url = await served(connections)
    async with HttpPool() as pool, session(pool, egress=PUBLIC) as strict:
        pool.connector(PUBLIC)._resolver = Rebinding()
        with pytest.raises(ClientConnectorError):
            await strict.get(url.replace("127.0.0.1", "hub.example"))
    await runner.cleanup()
    assert connections == set()


async def test_a_redirect_to_this_process_is_refused():
    connections: set[int] = set()
    runner, url = await served(connections)
    near = PUBLIC.around("127.0.0.1")
    async with HttpPool() as pool, session(pool, egress=near) as strict:
        with listening(*runner.addresses[0]), pytest.raises(ClientConnectorError) as caught:
            await strict.get(url)
        assert "where this process listens" in str(caught.value.os_error.strerror)
        async with strict.get(url) as response:
            assert response.status == 200
    await runner.cleanup()


async def test_a_body_is_read_up_to_a_bound_and_never_decompressed():
    async def bomb(_: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(bytes(10_000_000)), headers={"Content-Encoding": "gzip"})

    app = web.Application()
    app.router.add_get("/", bomb)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    async with session(None) as own:
        async with own.get(url) as response:
            data = await read_bounded(response, 20_000)
            assert data is not None
            assert data[:2] == b"\x1f\x8b"
            assert isinstance(response, PeerResponse)
            assert response.peer == "127.0.0.1"
        async with own.get(url) as response:
            assert await read_bounded(response, 1000) is None
    await runner.cleanup()
