"""A web server with fixed answers."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from p2pmodel.http.runner import ListeningRunner


@dataclass(frozen=True)
class Page:
    """An answer; one that `hangs` never comes."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/octet-stream"
    hangs: bool = False


@asynccontextmanager
async def web_answers(pages: Mapping[str, Page]) -> AsyncIterator[str]:
    """Serve `pages` by path on a free port of 127.0.0.1, and 404 for the rest; yields the base URL."""
    stop = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        page = pages.get(request.path, Page(404))
        if page.hangs:
            await stop.wait()
        return web.Response(status=page.status, body=page.body, content_type=page.content_type)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = ListeningRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await runner.listen(host="127.0.0.1", port=0)
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        stop.set()
        await runner.cleanup()
