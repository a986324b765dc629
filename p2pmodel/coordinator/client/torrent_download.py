"""Downloading a .torrent over HTTP, from a coordinator or from any other server."""

import asyncio
from urllib.parse import urlsplit

import aiohttp

from p2pmodel.coordinator.client.transport import NETWORK_ERRORS
from p2pmodel.coordinator.client.urls import public_name
from p2pmodel.core.names import printable
from p2pmodel.core.urls import shown
from p2pmodel.errors import BadTorrent, InvalidInput, NotFound, Unavailable
from p2pmodel.http_pool import HttpPool, session
from p2pmodel.origin.failures import reason_of
from p2pmodel.swarm.metainfo import MAX_TORRENT_SIZE
from p2pmodel.swarm.torrents import Metainfo, parse

DOWNLOAD_TIMEOUT = 30.0


async def download_torrent(
    url: str, timeout: float = DOWNLOAD_TIMEOUT, *, stall: float | None = None, http: HttpPool | None = None
) -> Metainfo:
    """GET a .torrent of bounded size within `timeout` seconds, and parse it.

    `stall` bounds the seconds to connect, and between two reads; `http` are connections to share. Raises NotFound,
    Unavailable, InvalidInput or BadTorrent.
    """
    limits = aiohttp.ClientTimeout(total=timeout, sock_connect=stall, sock_read=stall)
    try:
        async with session(http, timeout=limits) as shared, shared.get(url) as response:
            data = await _body(response, url)
    except aiohttp.InvalidURL:
        raise InvalidInput(f"'{shown(url)}' is not a URL") from None
    except NETWORK_ERRORS as error:
        raise Unavailable(
            f"{public_path(url)} cannot be downloaded: {reason_of(error)}", hint="check the address and the network"
        ) from None
    return await asyncio.to_thread(parse, data)


def public_path(url: str) -> str:
    """`url` for messages, without the token that its path or its query may contain."""
    name = urlsplit(url).path.rpartition("/")[2]
    return f"{public_name(url)}/.../{printable(name)}"


async def _body(response: aiohttp.ClientResponse, url: str) -> bytes:
    name = public_path(url)
    if response.status == 404:
        raise NotFound(f"{name} does not exist", hint="check the address")
    if response.status != 200:
        raise Unavailable(f"{name} answered {response.status}", hint="check the address, or try later")
    if response.content_type == "text/html":
        raise BadTorrent(f"{name} is a web page", hint="give the address of the .torrent itself")
    data = bytearray()
    async for chunk in response.content.iter_chunked(1 << 20):
        data += chunk
        if len(data) > MAX_TORRENT_SIZE:
            raise BadTorrent(f"{name} is larger than a .torrent may be")
    return bytes(data)
