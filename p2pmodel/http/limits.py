"""The `http` settings as connection limits and middlewares."""

import asyncio
import math
import resource
import time
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from cachetools import LRUCache

from p2pmodel.config.sections.http import HttpSettings
from p2pmodel.core.network.addresses import neighbourhood
from p2pmodel.errors import InvalidInput, TooManyRequests, TooSlow
from p2pmodel.http.admission.forwarded import TrustedProxies
from p2pmodel.http.connections import ConnectionLimits

BURST_SECONDS = 2.0
_ROUNDING = 1e-9
UNPACED = HttpSettings().unpaced
"""Limits for local clients: only times are bounded."""


class RequestRates:
    """`rate` requests a second for each key (a virtual-scheduling leaky bucket: one number a key).

    Holds the `most` keys that were used last; a dropped key starts again with a full burst.
    """

    def __init__(self, rate: float, clock: Callable[[], float], *, most: int = 10_000) -> None:
        self._interval = 1 / rate
        self._clock = clock
        self._paid_until: LRUCache[str, float] = LRUCache(most)

    def delay(self, key: str) -> float:
        """Seconds until the next request of `key` is admitted; 0 if it is admitted now, and then it is counted."""
        now = self._clock()
        behind = max(self._paid_until.get(key, now) - now, 0.0)
        wait = behind + self._interval - BURST_SECONDS
        if behind and wait > _ROUNDING:
            return wait
        self._paid_until[key] = now + behind + self._interval
        return 0.0


def connections(http: HttpSettings) -> ConnectionLimits:
    """The connection limits of one of several listeners.

    At most a sixth of the open files, since each connection may need files too; a quarter of that from one address.
    """
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = min(http.max_connections, max(1, files // 6))
    return ConnectionLimits(
        most,
        min(http.max_connections_per_address, max(1, most // 4)),
        http.header_timeout,
        http.stall_timeout,
        TrustedProxies.parse(http.trusted_proxies),
    )


def rate(http: HttpSettings, *, clock: Callable[[], float] = time.monotonic) -> list[Middleware]:
    """The request rate limit for each address: a middleware that raises TooManyRequests, or none without a limit."""
    if not http.max_requests_per_second:
        return []
    rates = RequestRates(http.max_requests_per_second, clock)

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        wait = rates.delay(neighbourhood(request.remote or ""))
        if wait:
            raise TooManyRequests("too many requests from one address", retry_after=math.ceil(wait))
        return await handler(request)

    return [check]


def body(seconds: float) -> Middleware:
    """The middleware that reads the body of a request before its handler runs, within `seconds`.

    Raises TooSlow, InvalidInput for a malformed body, and HTTPRequestEntityTooLarge before reading beyond the bound.
    """

    @web.middleware
    async def read(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.can_read_body and request.method not in ("GET", "HEAD"):
            await _read(request, seconds)
        return await handler(request)

    return read


async def _read(request: web.Request, seconds: float) -> None:
    declared, most = request.content_length, request.client_max_size
    if most and declared is not None and declared > most:
        raise web.HTTPRequestEntityTooLarge(max_size=most, actual_size=declared)
    try:
        async with asyncio.timeout(seconds):
            await request.read()
    except TimeoutError:
        raise TooSlow(f"the body of the request did not arrive within {seconds:g} s") from None
    except web.RequestPayloadError:
        raise InvalidInput("the body of the request does not match its header") from None
