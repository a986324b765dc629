"""Coordinators for the client's tests: real ones, and ones that give any answer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from aiohttp import web

from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog import Catalog
from p2pmodel.coordinator.server.publication import read_publication
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.core.names import Reference
from p2pmodel.http.server import serving
from p2pmodel.swarm.torrents import Metainfo
from tests.support.eventually import PATIENCE
from tests.support.torrent_files import SMALL, torrent_of

MAIN = Reference.parse("org/tiny@main")
TOKEN = "s3cret-token"
RAW = torrent_of(SMALL)
CLOSED = "http://127.0.0.1:1"
HOST = "127.0.0.47"
"""An address from which no client connects: a restarted coordinator gets its port again."""
FOREVER = 2 * PATIENCE


@asynccontextmanager
async def coordinator(token: str | None = None, *, port: int = 0) -> AsyncIterator[tuple[str, Catalog]]:
    catalog = Catalog()
    async with serving(coordinator_app(Tracker(), catalog, token=token), HOST, port) as base:
        yield base, catalog


@asynccontextmanager
async def catalog_of(metainfo: Metainfo, *refs: str, also: Sequence[Metainfo] = ()) -> AsyncIterator[str]:
    """A coordinator that has a torrent under `refs`, and further ones by their commits."""
    catalog = Catalog()
    for each, names in ((metainfo, refs), *((each, ()) for each in also)):
        await catalog.publish(read_publication(each.raw), names)
    async with serving(coordinator_app(Tracker(), catalog), "127.0.0.1", 0) as base:
        yield base


@asynccontextmanager
async def answering(answer: Callable[[], web.Response], *, delay: float = 0.0) -> AsyncIterator[str]:
    closing = asyncio.Event()

    async def handle(_request: web.Request) -> web.Response:
        # A client that leaves does not end its handler: the end of this context does.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(closing.wait(), delay)
        return answer()

    app = web.Application()
    app.router.add_route("*", "/catalog", handle)
    async with serving(app, "127.0.0.1", 0, grace=0.1) as base:
        try:
            yield base
        finally:
            closing.set()


def torrent(raw: bytes) -> Callable[[], web.Response]:
    return lambda: web.Response(body=raw, content_type="application/x-bittorrent")
