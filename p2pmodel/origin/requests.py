"""Ranged HTTP requests: redirects followed by hand, tokens sent to the mirror only, the body in large chunks."""

import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from types import SimpleNamespace
from urllib.parse import quote
from urllib.request import getproxies, proxy_bypass

import aiohttp
from cachetools import LRUCache
from yarl import URL

from p2pmodel import __version__
from p2pmodel.config.settings import OriginSettings
from p2pmodel.errors import Unavailable, WrongBytes
from p2pmodel.http_pool import HttpPool, session
from p2pmodel.origin.clock import Clock
from p2pmodel.origin.failures import Failed, Refused, failure_of
from p2pmodel.origin.mirrors.mirror import Mirror
from p2pmodel.origin.responses import ExpectedRange, check_identity, expired, judge

CHUNK = 1 << 20
"""Approximate bytes passed to the sink at once; a connection holds at most three of these in memory."""

CHUNK_SECONDS = 0.25
"""Seconds after which an incomplete chunk is passed on, so that kill -9 on a slow link loses little."""

REDIRECTS = {301, 302, 303, 307, 308}
MAX_REDIRECTS = 5
_MAX_RESOLVED = 4096
_NETWORK_ERRORS = (aiohttp.ClientError, TimeoutError, OSError, ValueError)
# All characters valid in a URL, and the percent sign: a presigned address must be sent unchanged.
_URL_CHARACTERS = "%/:=&?~#+!$,;'@()*[]"

_Resolved = tuple[str, str, str]
"""Mirror name, commit and path of a file with a known redirect target."""


class RangeRequests:
    """Sends range requests to mirrors over one connection pool. `on_rate`: called after a rate estimate changed."""

    def __init__(
        self, session: aiohttp.ClientSession, clock: Clock, on_rate: Callable[[], None] = lambda: None
    ) -> None:
        self._session = session
        self._clock = clock
        self._on_rate = on_rate
        self._resolved: LRUCache[_Resolved, URL] = LRUCache(_MAX_RESOLVED)

    async def stream(self, mirror: Mirror, wanted: ExpectedRange) -> AsyncGenerator[tuple[int, bytes], None]:
        """Yield (offset in the file, data) in order until all of `wanted` came; use it with `aclosing`.

        Raises Failed, Refused and RangesIgnored, after the bytes that came before.
        """
        response = await self._open(mirror, wanted)
        try:
            judge(response.status, response.headers, wanted, now=self._clock.date(), has_token=mirror.has_token)
            async for chunk in self._body(mirror, response, wanted):
                yield chunk
        finally:
            # Returns the connection to the pool after a complete body, closes it otherwise.
            response.release()

    async def measure_latency(self, mirror: Mirror) -> None:
        """Measure the latency of `mirror` by a small request on a new connection, without its token.

        Raises Failed if there is no response, or a server error.
        """
        url = URL(f"{mirror.settings.endpoint}/api/whoami-v2", encoded=True)
        response = await self.send(mirror, url, {"Connection": "close"})
        response.close()
        if response.status >= 500:
            raise Failed(f"HTTP {response.status}", status=response.status)

    async def _open(self, mirror: Mirror, wanted: ExpectedRange) -> aiohttp.ClientResponse:
        key = (mirror.name, wanted.manifest.commit, wanted.file.path)
        resolved = self._resolved.get(key)
        if resolved is not None:
            response = await self._get(mirror, resolved, wanted)
            if response.status not in REDIRECTS and not expired(response.status, response.headers):
                return response
            response.release()
            self._resolved.pop(key, None)
        return await self._resolve(mirror, wanted, key)

    async def _resolve(self, mirror: Mirror, wanted: ExpectedRange, key: _Resolved) -> aiohttp.ClientResponse:
        url = mirror.url(wanted.manifest, wanted.file.path)
        for hop in range(MAX_REDIRECTS + 1):
            response = await self._get(mirror, url, wanted)
            if response.status not in REDIRECTS:
                if hop:
                    self._remember(key, url, response)
                return response
            response.release()
            check_identity(response.headers, wanted)
            url = target_of(url, response.headers.get("Location"))
        raise Refused(f"more than {MAX_REDIRECTS} redirects", Unavailable)

    def _remember(self, key: _Resolved, url: URL, response: aiohttp.ClientResponse) -> None:
        if expired(response.status, response.headers):
            response.release()
            raise Failed(f"its redirect target answers HTTP {response.status}", status=response.status)
        self._resolved[key] = url

    async def _get(self, mirror: Mirror, url: URL, wanted: ExpectedRange) -> aiohttp.ClientResponse:
        return await self.send(mirror, url, wanted.header | mirror.authorization(url))

    async def send(
        self, mirror: Mirror, url: URL, headers: dict[str, str], *, method: str = "GET", body: bytes | None = None
    ) -> aiohttp.ClientResponse:
        """Send one request; a redirect is returned, not followed. Raises Failed."""
        timing = _Timing()
        began = time.monotonic()
        try:
            response = await self._session.request(
                method,
                url,
                headers=headers,
                data=body,
                allow_redirects=False,
                proxy=proxy_for(url),
                ssl=mirror.tls(url),
                trace_request_ctx=timing,
            )
        except _NETWORK_ERRORS as error:
            raise failure_of(error) from error
        connecting = timing.connected - timing.began
        first_byte = time.monotonic() - began - connecting
        mirror.responded(connecting if timing.connected else None, first_byte, self._clock.now())
        return response

    async def _body(
        self, mirror: Mirror, response: aiohttp.ClientResponse, wanted: ExpectedRange
    ) -> AsyncGenerator[tuple[int, bytes], None]:
        blocks: list[bytes] = []
        offset, held, failure = wanted.start, 0, None
        yielded_at = time.monotonic()
        while failure is None:
            block, failure = await next_block(response, mirror.pace.block)
            if block and mirror.received(len(block), self._clock.now()):
                self._on_rate()
            blocks.append(block)
            held += len(block)
            if offset + held > wanted.end:
                mirror.wasted(held)
                raise Refused(f"wrong size: more than {wanted.file.size} bytes", WrongBytes, "more bytes")
            if held >= CHUNK or (held and (not block or time.monotonic() - yielded_at >= CHUNK_SECONDS)):
                yield offset, b"".join(blocks)
                offset, held = offset + held, 0
                blocks.clear()
                yielded_at = time.monotonic()
            if not block:
                break
            await mirror.pace.spend(len(block))
        if failure is None and offset < wanted.end:
            failure = Failed("connection closed before the end")
        if failure is not None:
            raise failure


async def next_block(response: aiohttp.ClientResponse, most: int) -> tuple[bytes, Failed | None]:
    """The bytes in the buffer, at most `most`; empty at the end of the body or after a failure."""
    try:
        return await response.content.read(most), None
    except _NETWORK_ERRORS as error:
        return b"", failure_of(error)


@dataclass(slots=True)
class _Timing:
    """Start and end of connecting, by `time.monotonic`; 0 for a reused connection."""

    began: float = 0.0
    connected: float = 0.0


def _tracing() -> aiohttp.TraceConfig:
    async def begin(_: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
        context.trace_request_ctx.began = time.monotonic()

    async def end(_: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
        context.trace_request_ctx.connected = time.monotonic()

    tracing = aiohttp.TraceConfig()
    tracing.on_connection_create_start.append(begin)
    tracing.on_connection_create_end.append(end)
    return tracing


def new_session(settings: OriginSettings, pool: HttpPool | None = None) -> aiohttp.ClientSession:
    """A session on `pool`, or on its own connections: no decompression, no cookies, a timeout on every wait."""
    timeout = aiohttp.ClientTimeout(
        total=None,
        connect=settings.connect_timeout,
        sock_connect=settings.connect_timeout,
        sock_read=settings.read_timeout,
    )
    return session(
        pool,  # unbounded: Mirror.slots bounds the connections, and a redirect leads to another host
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        read_bufsize=CHUNK,
        timeout=timeout,
        trace_configs=[_tracing()],
        headers={"Accept-Encoding": "identity", "User-Agent": f"p2pmodel/{__version__}"},
    )


def target_of(url: URL, location: str | None) -> URL:
    """The address a redirect from `url` leads to. Raises Refused."""
    try:
        target = url.join(URL(quote(location or "", safe=_URL_CHARACTERS), encoded=True))
    except ValueError:
        target = URL()
    if not location or target.scheme not in ("http", "https") or not target.host:
        raise Refused("it redirects to an unusable address", Unavailable)
    return target.with_fragment(None) if target.raw_fragment else target


def proxy_for(url: URL) -> str | None:
    """The proxy for `url` from the environment (HTTPS_PROXY, NO_PROXY, ...); None without one."""
    proxies = getproxies()
    if not proxies or proxy_bypass(url.host or ""):
        return None
    return proxies.get(url.scheme) or proxies.get("all")
