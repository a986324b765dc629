"""The HTTP sessions of requests to mirrors: timeouts on every wait, no cookies, one session for each egress rule."""

import time
from types import SimpleNamespace
from typing import Self

import aiohttp

from p2pmodel import __version__
from p2pmodel.config.sections.mirrors import OriginSettings
from p2pmodel.core.network.egress import Egress
from p2pmodel.http_pool import HttpPool, session

CHUNK = 1 << 20
"""Approximate bytes passed to the sink at once; a connection holds at most three of these in memory."""


class ConnectTiming:
    """Start and end of connecting, by `time.monotonic`; 0 for a reused connection. The context of a request."""

    def __init__(self) -> None:
        self.began = 0.0
        self.connected = 0.0


class MirrorSessions:
    """Sessions on `pool`, or on connections of their own. `async with` or `close` ends them.

    The body is not decompressed. Their number is bounded by that of the rules in use.
    """

    def __init__(self, settings: OriginSettings, pool: HttpPool | None = None) -> None:
        self._settings = settings
        self._pool = pool
        self.proxies = settings.proxies
        self._open: dict[Egress | None, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def under(self, egress: Egress | None) -> aiohttp.ClientSession:
        """The session for URLs under the rule `egress`; None: for those that the settings name."""
        if egress not in self._open:
            self._open[egress] = self._new(egress)
        return self._open[egress]

    async def close(self) -> None:
        """Close all sessions."""
        while self._open:
            await self._open.popitem()[1].close()

    def _new(self, egress: Egress | None) -> aiohttp.ClientSession:
        timeout = aiohttp.ClientTimeout(
            total=None,
            connect=self._settings.connect_timeout,
            sock_connect=self._settings.connect_timeout,
            sock_read=self._settings.read_timeout,
        )
        return session(
            self._pool,  # unbounded: Mirror.slots bounds the connections, and a redirect leads to another host
            egress=egress,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=CHUNK,
            timeout=timeout,
            trace_configs=[_tracing()],
            headers={"Accept-Encoding": "identity", "User-Agent": f"p2pmodel/{__version__}"},
        )


def _tracing() -> aiohttp.TraceConfig:
    async def begin(_: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
        context.trace_request_ctx.began = time.monotonic()

    async def end(_: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
        context.trace_request_ctx.connected = time.monotonic()

    tracing = aiohttp.TraceConfig()
    tracing.on_connection_create_start.append(begin)
    tracing.on_connection_create_end.append(end)
    return tracing
