"""The outgoing HTTP connections of one use case: connectors under sessions with different timeouts."""

import errno
import socket
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp.connector import Connection

from p2pmodel.core.network.egress import Egress
from p2pmodel.core.network.listeners import is_own
from p2pmodel.core.network.proxies import Proxy

DNS_SECONDS = 60
"""Seconds for which a resolved address is used."""


class ForbiddenAddress(OSError):
    """A URL given by others leads to an address that its rule does not admit. `strerror` describes the address."""


class HttpPool:
    """Connections that several sessions share. `async with` opens and closes it; it may be opened again afterwards.

    There is a connector for each rule about addresses, so that a connection which one rule admits is not reused under
    another one. The number of connections is unbounded here: the users of a session bound it by mirror.
    """

    def __init__(self) -> None:
        self._connectors: dict[Egress | None, aiohttp.TCPConnector] = {}
        self._opened = False

    async def __aenter__(self) -> Self:
        self._opened = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        connectors, self._connectors = self._connectors, {}
        self._opened = False
        for connector in connectors.values():
            await connector.close()

    def connector(self, egress: Egress | None = None) -> aiohttp.TCPConnector:
        """The shared connector for URLs from the settings, or for URLs under the rule `egress`; the pool must be
        open."""
        assert self._opened
        if egress not in self._connectors:
            self._connectors[egress] = _new_connector(egress)
        return self._connectors[egress]


class PeerResponse(aiohttp.ClientResponse):
    """A response that knows the network address of its server or proxy."""

    peer = ""
    proxy = ""
    """Host and port of the proxy that the request went through, for messages; "" without one."""

    async def start(self, connection: Connection) -> "PeerResponse":
        """As in aiohttp. A response without a body has lost its connection after this."""
        where = connection.transport.get_extra_info("peername") if connection.transport else None
        self.peer = str(where[0]) if where else ""
        await super().start(connection)
        return self


def through(proxy: Proxy | None, url: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of a request to `url` with `headers` through `proxy`. Its credentials are no part of a URL, and go
    to the proxy alone: over a tunnel in the request that opens it."""
    if proxy is None:
        return {"headers": dict(headers)}
    tunnel = url.startswith("https:")
    own = {} if tunnel else proxy.headers
    return {
        "headers": {**headers, **own},
        "proxy": proxy.url,
        "proxy_headers": proxy.headers if tunnel else None,
    }


async def read_bounded(response: aiohttp.ClientResponse, limit: int) -> bytes | None:
    """The body as it was sent, or None if it is longer than `limit` bytes."""
    data = bytearray()
    async for chunk in response.content.iter_chunked(1 << 18):
        data += chunk
        if len(data) > limit:
            return None
    return bytes(data)


async def sent_events(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, bytes]]:
    """Kind and data of each server-sent event, as `http/event_streams` sends them."""
    kind = ""
    async for line in response.content:
        if line.startswith(b"event: "):
            kind = line[7:].strip().decode()
        elif line.startswith(b"data: "):
            yield kind, line[6:].strip()


def session(pool: HttpPool | None, *, egress: Egress | None = None, **options: Any) -> aiohttp.ClientSession:
    """A session on the connections of `pool`, or on its own without one. `options` as aiohttp.ClientSession takes.

    `egress` is the rule for the address of each connection; None for URLs from the settings. Bodies are not
    decompressed, so that a bound on their bytes holds.
    """
    options["response_class"], options["auto_decompress"] = PeerResponse, False
    if pool is None:
        return aiohttp.ClientSession(connector=_new_connector(egress), **options)
    return aiohttp.ClientSession(connector=pool.connector(egress), connector_owner=False, **options)


def _new_connector(egress: Egress | None) -> aiohttp.TCPConnector:
    # Unlike a resolver, the factory of sockets sees the addresses in URLs, too, and those that are connected to.
    factory = None if egress is None else lambda info: _admitted_socket(egress, info)
    return aiohttp.TCPConnector(limit=0, ttl_dns_cache=DNS_SECONDS, socket_factory=factory)


def _admitted_socket(egress: Egress, info: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, where = info
    address, port = str(where[0]), int(where[1])
    refusal = egress.refusal(address)
    if not refusal and not egress.ourselves and is_own(address, port):
        refusal = f"port {port} of {address}, where this process listens"
    if refusal:
        raise ForbiddenAddress(errno.EACCES, refusal)
    return socket.socket(family, kind, protocol)
