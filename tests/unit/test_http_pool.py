"""The pool of outgoing HTTP connections: shared by sessions, closed once."""

from aiohttp import ClientTimeout, web

from p2pmodel.http_pool import HttpPool, session


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
        assert not pool.connector.closed
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
