"""Ranged HTTP requests: redirects followed by hand, tokens sent to the mirror only, the body in large chunks."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import quote

import aiohttp
from cachetools import LRUCache
from yarl import URL

from p2pmodel.core.network.egress import PUBLIC, Egress
from p2pmodel.core.network.proxies import Proxy
from p2pmodel.errors import InvalidInput, Unavailable, WrongBytes
from p2pmodel.http_pool import PeerResponse, through
from p2pmodel.origin.clock import Clock
from p2pmodel.origin.failures import (
    NETWORK_ERRORS,
    Failed,
    Refused,
    failure_of,
    forbidden,
    forbidden_in,
    naming,
    next_block,
    refused_by_proxy,
    status_failure,
)
from p2pmodel.origin.mirrors.mirror import Mirror
from p2pmodel.origin.modelscope import ModelScopeFiles
from p2pmodel.origin.responses import ExpectedRange, check_identity, expired, judge
from p2pmodel.origin.s3.addresses import other_region
from p2pmodel.origin.sessions import CHUNK, ConnectTiming, MirrorSessions

CHUNK_SECONDS = 0.25
"""Seconds after which an incomplete chunk is passed on, so that kill -9 on a slow link loses little."""

REDIRECTS = {301, 302, 303, 307, 308}
MAX_REDIRECTS = 5
_MAX_RESOLVED = 4096
# All characters valid in a URL, and the percent sign: a presigned address must be sent unchanged.
_URL_CHARACTERS = "%/:=&?~#+!$,;'@()*[]"

_Resolved = tuple[str, str, str]
"""Mirror name, commit and path of a file with a known redirect target."""


@dataclass(frozen=True, slots=True)
class Place:
    """The URL of a request, and the rule for its address; none for a URL from the settings."""

    url: URL
    egress: Egress | None = None


class RangeRequests:
    """Sends range requests to mirrors over one connection pool. `on_rate`: called after a rate estimate changed.

    `egress` is the rule for redirects of all mirrors.
    """

    def __init__(
        self,
        sessions: MirrorSessions,
        clock: Clock,
        on_rate: Callable[[], None] = lambda: None,
        *,
        egress: Egress = PUBLIC,
    ) -> None:
        self._sessions = sessions
        self._clock = clock
        self._on_rate = on_rate
        self._egress = egress
        self._resolved: LRUCache[_Resolved, Place] = LRUCache(_MAX_RESOLVED)
        self._modelscope = ModelScopeFiles(self.opened, clock)

    async def stream(self, mirror: Mirror, wanted: ExpectedRange) -> AsyncGenerator[tuple[int, bytes], None]:
        """Yield (offset in the file, data) in order until all of `wanted` came; use it with `aclosing`.

        Raises Failed, Refused and RangesIgnored, after the bytes that came before.
        """
        response = await self._open(mirror, wanted)
        try:
            with naming(response.proxy):
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
        place = mirror_place(mirror, "/api/whoami-v2")
        response = await self.send(mirror, place, {"Connection": "close"})
        response.close()
        if response.status >= 500:
            raise Failed(f"HTTP {response.status}", status=response.status)

    async def _open(self, mirror: Mirror, wanted: ExpectedRange) -> PeerResponse:
        key = (mirror.name, wanted.manifest.commit, wanted.file.path)
        resolved = self._resolved.get(key)
        if resolved is not None:
            response = await self._get(mirror, resolved, wanted)
            if response.status not in REDIRECTS and not expired(response.status, response.headers):
                return response
            response.release()
            self._resolved.pop(key, None)
        return await self._resolve(mirror, wanted, key)

    async def _resolve(self, mirror: Mirror, wanted: ExpectedRange, key: _Resolved) -> PeerResponse:
        place = await self._place(mirror, wanted)
        for hop in range(MAX_REDIRECTS + 1):
            response = await self._get(mirror, place, wanted)
            if response.status not in REDIRECTS:
                if hop:
                    self._remember(key, place, response)
                return response
            response.release()
            check_identity(response.headers, wanted)
            place = self.redirected(mirror, response)
        raise Refused(f"more than {MAX_REDIRECTS} redirects", Unavailable)

    async def _place(self, mirror: Mirror, wanted: ExpectedRange) -> Place:
        """Where `mirror` has the file. Raises Refused if it has none such."""
        if mirror.settings.kind == "modelscope":
            return mirror_place(mirror, await self._modelscope.path(mirror, wanted.manifest.repo, wanted.file))
        return Place(mirror.url(wanted.manifest, wanted.file.path), mirror.egress)

    @asynccontextmanager
    async def opened(self, mirror: Mirror, path: str, headers: Mapping[str, str]) -> AsyncIterator[PeerResponse]:
        """The response to a GET of `path` below the endpoint of `mirror`, after redirects."""
        place = mirror_place(mirror, path)
        for _ in range(MAX_REDIRECTS + 1):
            response = await self.send(mirror, place, {**headers, **mirror.authorization(place.url)})
            try:
                if response.status not in REDIRECTS:
                    yield response
                    return
                place = self.redirected(mirror, response)
            finally:
                response.release()
        raise Refused(f"more than {MAX_REDIRECTS} redirects", Unavailable)

    async def small_body(self, mirror: Mirror, path: str, length: int) -> bytes:
        """The `length` bytes of the response to a GET of `path` below the endpoint of `mirror`. Raises Failed and
        Refused."""
        async with self.opened(mirror, path, {}) as response:
            with naming(response.proxy):
                if response.status != 200:
                    raise status_failure(response.status, response.headers, self._clock.date())
                data = bytearray()
                while len(data) <= length:
                    block, failure = await next_block(response, mirror.pace.block)
                    if failure is not None:
                        raise failure
                    if not block:
                        break
                    mirror.received(len(block), self._clock.now())
                    await mirror.pace.reserve(len(block))
                    data += block
        if len(data) != length:
            raise Refused(f"{len(data)} bytes instead of {length}", WrongBytes, f"{len(data)} bytes")
        return bytes(data)

    def redirected(self, mirror: Mirror, response: PeerResponse) -> Place:
        """Where the redirect `response` of a request to `mirror` leads. Raises Refused."""
        if mirror.bucket is not None:
            raise Refused(other_region(response.headers), Unavailable)
        url = target_of(response.url, response.headers.get("Location"))
        sender = "" if response.proxy else response.peer
        return Place(url, mirror.egress_of(url, sender, self._egress))

    def _remember(self, key: _Resolved, place: Place, response: PeerResponse) -> None:
        if expired(response.status, response.headers):
            response.release()
            raise Failed(f"its redirect target answers HTTP {response.status}", status=response.status)
        self._resolved[key] = place

    async def _get(self, mirror: Mirror, place: Place, wanted: ExpectedRange) -> PeerResponse:
        return await self.send(mirror, place, wanted.header | mirror.authorization(place.url))

    async def send(
        self, mirror: Mirror, place: Place, headers: dict[str, str], *, method: str = "GET", body: bytes | None = None
    ) -> PeerResponse:
        """Send one request; a redirect is returned, not followed. Raises Failed, or Refused for a forbidden address."""
        timing = ConnectTiming()
        url = await mirror.request_url(place.url, method)
        proxy = self._proxy(mirror, url)
        if place.egress is not None and (refusal := place.egress.url_refusal(str(url))):
            raise forbidden(refusal)
        began = time.monotonic()
        try:
            # A connection to a proxy leads to an address from the settings.
            response = await self._sessions.under(None if proxy else place.egress).request(
                method,
                url,
                data=body,
                allow_redirects=False,
                ssl=mirror.tls(url),
                server_hostname=mirror.tls_name(url),
                read_bufsize=min(CHUNK, mirror.pace.block),  # what comes ahead of a rate limit is not held back by it
                trace_request_ctx=timing,
                **through(proxy, str(url), headers),
            )
        except NETWORK_ERRORS as error:
            with naming(proxy.name if proxy else ""):
                raise forbidden_in(error) or refused_by_proxy(error) or failure_of(error) from error
        assert isinstance(response, PeerResponse)
        response.proxy = proxy.name if proxy else ""
        connecting = timing.connected - timing.began
        first_byte = time.monotonic() - began - connecting
        mirror.responded(connecting if timing.connected else None, first_byte, self._clock.now())
        return response

    def _proxy(self, mirror: Mirror, url: URL) -> Proxy | None:
        """The proxy for `url`. Raises Refused for one that cannot be used."""
        try:
            return None if mirror.direct else self._sessions.proxies.of(str(url))
        except InvalidInput as error:
            raise Refused(str(error), Unavailable) from None

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
            # Before a `yield`, which may be the last: a reader that has enough comes back no more.
            taken = mirror.pace.take(len(block))
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
            await mirror.pace.settle(taken)
        if failure is None and offset < wanted.end:
            failure = Failed("connection closed before the end")
        if failure is not None:
            raise failure


def mirror_place(mirror: Mirror, path: str) -> Place:
    """The place of `path`, with its query, below the mirror's endpoint."""
    return Place(URL(f"{mirror.settings.endpoint}{path}", encoded=True), mirror.egress)


def target_of(url: URL, location: str | None) -> URL:
    """The address a redirect from `url` leads to. Raises Refused."""
    try:
        target = url.join(URL(quote(location or "", safe=_URL_CHARACTERS, errors="replace"), encoded=True))
        usable = bool(target.host) and target.port != 0 and target.user is None and target.password is None
    except ValueError:
        usable = False
    if not location or not usable or target.scheme not in ("http", "https"):
        raise Refused("it redirects to an unusable address", Unavailable)
    return target.with_fragment(None) if target.raw_fragment else target
