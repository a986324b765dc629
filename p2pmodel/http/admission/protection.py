"""What every HTTP server applies around its application: guard, user of the peer, throttle on wrong tokens, headers.

`serving` and `serving_unix` install it, so that no server is without it.
"""

import asyncio
import math
import time
from collections.abc import Callable
from weakref import WeakKeyDictionary

from aiohttp import web
from aiohttp.typedefs import Handler
from cachetools import LRUCache

from p2pmodel.core.network.addresses import is_loopback, neighbourhood
from p2pmodel.errors import Forbidden, P2PModelError, TooManyRequests
from p2pmodel.http.admission.access import WRONG_TOKEN, RequestGuard
from p2pmodel.http.admission.forwarded import THROUGH_PROXY
from p2pmodel.http.admission.peer_identity import is_own, tcp_owner, unix_owner
from p2pmodel.http.connections import OVERFLOW
from p2pmodel.http.error_responses import FAILURES, FailureLog, error_response

OUTER_MIDDLEWARES = web.AppKey("OUTER_MIDDLEWARES", int)
"""Key of an application for the number of its middlewares that see refused requests, too, such as an access log."""

WRONG_AT_ONCE = 20
"""Wrong tokens of one address before it must wait."""
SECONDS_EACH = 2.0
"""Seconds for each further wrong token."""

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
_LATER = 5
"""Seconds until a client with too many requests tries again."""
_PASSIVE = ("application/json", "application/octet-stream", "text/plain", "text/event-stream")
"""Content types that a browser does not run. Pages of the server itself have a policy of their own."""


class TokenThrottle:
    """Wrong tokens for each address: WRONG_AT_ONCE at once, then one in SECONDS_EACH. Holds the `most` last ones."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, most: int = 10_000) -> None:
        self._clock = clock
        self._until: LRUCache[str, float] = LRUCache(most)

    def delay(self, address: str) -> float:
        """Seconds until a request of `address` with a token is admitted; 0 if it is admitted now."""
        behind = self._until.get(address, 0.0) - self._clock()
        return max(0.0, behind - (WRONG_AT_ONCE - 1) * SECONDS_EACH)

    def wrong(self, address: str) -> None:
        """Count a wrong token of `address`."""
        self._until[address] = max(self._until.get(address, 0.0), self._clock()) + SECONDS_EACH


def protect(
    app: web.Application, guard: RequestGuard | None, note: Callable[[str], None], *, open_to_group: bool = False
) -> None:
    """Apply `guard` (None: a unix socket, which only this process's user and root may use) to all requests to `app`.

    `open_to_group`: the mode of the socket admits a group, too. `note` receives log lines.
    """
    app[FAILURES] = FailureLog(note)
    app.middlewares.insert(app.get(OUTER_MIDDLEWARES, 0), _Protection(guard, TokenThrottle(), open_to_group).handle)
    app.on_response_prepare.append(_add_headers)


class _Protection:
    def __init__(self, guard: RequestGuard | None, throttle: TokenThrottle, open_to_group: bool) -> None:
        self._open_to_group = open_to_group
        self._guard = guard
        self._throttle = throttle
        self._own: WeakKeyDictionary[asyncio.BaseTransport, bool] = WeakKeyDictionary()

    @web.middleware
    async def handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if request.get(OVERFLOW):
                raise TooManyRequests("too many requests of one client at a time", retry_after=_LATER)
            await self._check(request)
            if "Authorization" in request.headers or "key" in request.match_info:
                self._check_brake(request)
        except P2PModelError as error:
            return _refusal(error)
        try:
            return await handler(request)
        finally:
            if request.get(WRONG_TOKEN):
                self._throttle.wrong(neighbourhood(request.remote or ""))

    def _check_brake(self, request: web.Request) -> None:
        wait = self._throttle.delay(neighbourhood(request.remote or ""))
        if wait:
            raise TooManyRequests("too many wrong tokens from one address", retry_after=math.ceil(wait))

    async def _check(self, request: web.Request) -> None:
        guard, transport = self._guard, request.transport
        if guard is not None:
            guard.check(request.method, request.path, request.headers)
        if transport is None or self._open_to_group or (guard is not None and not guard.own_user):
            return
        if request.get(THROUGH_PROXY) and not is_loopback(request.remote or ""):
            return  # the client is another machine
        own = self._own.get(transport)
        if own is None:
            self._own[transport] = own = await _is_own(transport)
        if not own:
            raise Forbidden(
                "this server admits only its own user and root",
                hint="start it with --allow-local-users (http.allow_local_users) to admit all users of this machine",
            )


async def _is_own(transport: asyncio.BaseTransport) -> bool:
    """Whether the peer is another machine, or a process of this process's user or root."""
    peer, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
    if not isinstance(peer, tuple):
        return is_own(unix_owner(transport.get_extra_info("socket")))
    if not is_loopback(str(peer[0])):
        return True
    return is_own(await asyncio.to_thread(tcp_owner, peer[:2], local[:2]))


def _refusal(error: P2PModelError) -> web.Response:
    """The response, which hub clients understand, too."""
    response = error_response(error)
    response.headers["X-Error-Message"] = str(error).encode("ascii", "replace").decode()
    return response


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Let no browser run a response as a page, unless the response has a policy of its own."""
    if "Content-Security-Policy" not in response.headers and response.content_type not in _PASSIVE:
        response.headers["Content-Disposition"] = "attachment"
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
