"""What one client may ask of the daemon over TCP: the limits of the settings, as connections and middlewares."""

import asyncio
import math
import resource
import time
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from p2pmodel.config.settings import HttpSettings
from p2pmodel.core.addresses import neighbourhood
from p2pmodel.errors import InvalidInput, TooManyRequests, TooSlow
from p2pmodel.http.connections import ConnectionLimits
from p2pmodel.http.request_rates import RequestRates

UNPACED = HttpSettings().unpaced
"""For whom only time is limited."""


def connections(http: HttpSettings) -> ConnectionLimits:
    """Of connections; no more than leave room for the files that they are about."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return ConnectionLimits(
        min(http.max_connections, max(1, files // 3)),
        http.max_connections_per_address,
        http.header_timeout,
        http.stall_timeout,
    )


def rate(http: HttpSettings, *, clock: Callable[[], float] = time.monotonic) -> list[Middleware]:
    """Of requests from one address: none if the settings have none, else a middleware that raises TooManyRequests."""
    if not http.max_requests_per_second:
        return []
    rates = RequestRates(http.max_requests_per_second, clock)

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        wait = rates.ask(neighbourhood(request.remote or ""))
        if wait:
            raise TooManyRequests("too many requests from one address", retry_after=math.ceil(wait))
        return await handler(request)

    return [check]


def body(seconds: float) -> Middleware:
    """The middleware that has the body of a request read before its handler runs, in `seconds` at most. Raises
    TooSlow, InvalidInput for what is no body, and HTTPRequestEntityTooLarge before it has read more than is allowed."""

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
        raise InvalidInput("the body of the request is not what its header says") from None
