"""Coordinators for the client's tests: real ones, and ones that give any answer."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.catalog.publication import read_publication
from p2pmodel.coordinator.server.credentials import Credentials
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.core.content.names import Reference
from p2pmodel.http.server import serving
from p2pmodel.swarm.torrents import Metainfo
from tests.support.eventually import PATIENCE
from tests.support.torrent_files import SMALL, torrent_of

MAIN = Reference.parse("org/tiny@main")
TOKEN = "s3cret-token-of-members"
PUBLISH_TOKEN = "s3cret-token-of-a-publisher"
ADMIN_TOKEN = "s3cret-token-of-administrators"
PUBLISHERS = Credentials(publishers={"seeder": PUBLISH_TOKEN})
"""Reading is open; `client` publishes."""
RAW = torrent_of(SMALL)
CLOSED = "http://127.0.0.1:1"
HOST = "127.0.0.47"
"""An address from which no client connects: a restarted coordinator gets its port again."""
FOREVER = 2 * PATIENCE


def tokens(member: str | None = None) -> Credentials:
    return Credentials(member, {"seeder": PUBLISH_TOKEN}, ADMIN_TOKEN)


def token_file(folder: Path, token: str = PUBLISH_TOKEN) -> Path:
    """A file with `token` that only this user reads."""
    path = folder / f"{hashlib.sha256(token.encode()).hexdigest()[:8]}.token"
    path.touch(mode=0o600)
    path.write_text(f"{token}\n")
    return path


def client(url: str, *, member: str = "", publish: str = PUBLISH_TOKEN) -> Coordinator:
    return Coordinator(url, member, publish)


@asynccontextmanager
async def coordinator(token: str | None = None, *, port: int = 0) -> AsyncIterator[tuple[str, Catalog]]:
    catalog = Catalog()
    async with serving(coordinator_app(Tracker(), catalog, credentials=tokens(token)), HOST, port) as base:
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
