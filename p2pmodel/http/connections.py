"""Limits on the connections of a server: their number, and the time for a header and for a stalled client.

aiohttp's handler gets a connection once it is admitted and, with TLS, after the handshake; until then the connection
costs one count only. Malformed HTTP is answered with a JSON error and never logged. The kernel bounds writing
(TCP_USER_TIMEOUT), since only the kernel sees whether the client acknowledges data.
"""

import asyncio
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from p2pmodel.core.network.addresses import neighbourhood
from p2pmodel.core.notes import warning
from p2pmodel.http.admission.forwarded import NO_PROXIES, THROUGH_PROXY, TrustedProxies
from p2pmodel.http.error_responses import http_error_response, status_response

_CLOSE_SECONDS = 10.0
"""Bound on a TLS shutdown."""
_REJECT_SECONDS = 1.0
"""Time for a rejected client to read the response."""
_MOST_REJECTED = 16
"""Rejected clients that have this time at once; further ones are disconnected without a response."""
_LOG_EVERY = 60.0
"""Seconds between two log lines about rejected connections."""
_FULL = b'{"code": "too_many_connections", "message": "there are too many connections", "hint": "try again later"}'
_REJECTION = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json; charset=utf-8\r\nRetry-After: 5\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(_FULL), _FULL)
)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of one server. `most`: connections in all; `most_each`: from one address (None: no limit). Connections of
    `proxies` are those of many clients: there `most_each` bounds the requests of one client at a time.

    In seconds, `header`: for the TLS handshake and for the header of a request; `stall`: close a connection after this
    long without the client reading.
    """

    most: int | None = None
    most_each: int | None = None
    header: float = 15.0
    stall: float = 120.0
    proxies: TrustedProxies = NO_PROXIES


OVERFLOW = web.RequestKey("OVERFLOW", bool)
"""Key of a request of a client that has as many requests in progress through proxies as it may."""


class _ConnectionCounts:
    """The open connections by address. Connections without an address (unix socket) count towards the total only."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._present: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Count a connection until `leave`, and return True; False if a limit is reached."""
        most, each = self._limits.most, self._limits.most_each
        if most is not None and self._present.total() >= most:
            return False
        if address and each is not None and self._present[address] >= each:
            return False
        self._present[address] += 1
        return True

    def leave(self, address: str) -> None:
        """Remove a connection of `address` from the count."""
        self._present[address] -= 1
        if not self._present[address]:
            del self._present[address]


class RejectedConnections:
    """The rejected connections, as one log line in `_LOG_EVERY` seconds at most."""

    def __init__(self, note: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.waiting = 0
        """Rejected clients that may still read the response."""
        self._note = note
        self._clock = clock
        self._count = 0
        self._logged: float | None = None

    def add(self, address: str) -> None:
        """Count a rejected connection from `address`, and log the count if the last log line is old enough."""
        self._count += 1
        now = self._clock()
        if self._logged is not None and now - self._logged < _LOG_EVERY:
            return
        text = (
            f"connections refused: {self._count}, the last from {address or 'a unix socket'}; see http.max_connections"
        )
        self._note(warning("connections_refused", text, refused=self._count, address=address))
        self._logged, self._count = now, 0


class LimitedServer(web.Server):
    """aiohttp's server with `limits`, and with TLS if `tls` is given. `of` is the server of the application."""

    def __init__(
        self,
        of: web.Server,
        limits: ConnectionLimits,
        tls: ssl.SSLContext | None,
        options: Mapping[str, Any],
        note: Callable[[str], None],
    ) -> None:
        super().__init__(of.request_handler, request_factory=self._made, **options)
        self._factory = of.request_factory
        self.limits = limits
        self.tls = tls
        self.counts = _ConnectionCounts(limits)
        self.proxied = _ConnectionCounts(ConnectionLimits(None, limits.most_each))
        """The requests in progress of clients of trusted proxies."""
        self.rejected = RejectedConnections(note)
        self.handshakes: set[asyncio.Task[None]] = set()

    def __call__(self) -> web.RequestHandler:
        """The protocol of a new connection."""
        return _LimitedConnection(self, self._kwargs)

    async def shutdown(self, timeout: float | None = None) -> None:
        """Cancel the TLS handshakes, then shut down as aiohttp does."""
        for handshake in list(self.handshakes):
            handshake.cancel()
        await asyncio.gather(*self.handshakes, return_exceptions=True)
        await super().shutdown(timeout)

    def _made(self, message: Any, payload: Any, protocol: web.RequestHandler, writer: Any, task: Any) -> Any:
        connection = cast("_LimitedConnection", protocol)
        connection.request_began()
        request = self._factory(message, payload, protocol, writer, task)
        client = self.limits.proxies.client(request.remote or "", request.headers)
        if client is None or not isinstance(request, web.Request):
            return request
        return connection.request_through_proxy(request.clone(remote=client))


class _LimitedConnection(web.RequestHandler):
    """One connection, counted from its start to its end."""

    def __init__(self, server: LimitedServer, options: Mapping[str, Any]) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self._server = server
        self._address: str | None = None
        self._rejected = False
        self._reading_rejection = False
        self._deadline: asyncio.TimerHandle | None = None
        self._answering = False
        self._line: asyncio.Transport | None = None
        self._client: str | None = None
        """The client of a trusted proxy, during its request."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._line = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        address = neighbourhood(peer[0]) if isinstance(peer, tuple) else ""
        if address and self._server.limits.proxies.trusts(peer[0]):
            address = ""
        if not self._server.counts.enter(address):
            self._server.rejected.add(address)
            self._reject(self._line)
            return
        self._address = address
        _bound_writing(self._line, self._server.limits.stall)
        if self._server.tls is None:
            self._begin(self._line)
        else:
            handshake = asyncio.ensure_future(self._tls_handshake(self._line, self._server.tls))
            self._server.handshakes.add(handshake)
            handshake.add_done_callback(self._server.handshakes.discard)

    def data_received(self, data: bytes) -> None:
        if self._rejected:
            return
        super().data_received(data)
        # Most headers arrive whole; those need no timer.
        if data and not self._answering and not self._messages and self._deadline is None:
            self._await_header()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._line = None
        self._stop_waiting()
        self._leave()
        self._end_request()
        self._forget_rejection()
        task = self._task_handler
        super().connection_lost(exc)
        if task is not None and not self._answering:
            task.cancel()  # it waits for the rest of a body that will not arrive

    def request_began(self) -> None:
        """Stop the timer for the header: the header is complete."""
        self._answering = True
        self._stop_waiting()

    def request_through_proxy(self, request: web.Request) -> web.Request:
        """Count `request`, of a client of a trusted proxy, until its end."""
        request[THROUGH_PROXY] = True
        address = neighbourhood(request.remote or "")
        if self._server.proxied.enter(address):
            self._client = address
        else:
            self._server.rejected.add(address)
            request[OVERFLOW] = True
        return request

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if isinstance(resp, web.HTTPError):
            resp = http_error_response(resp)
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._answering = False
            self._end_request()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  quotes what the client sent
    ) -> web.StreamResponse:
        self.log_exception("request failed", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the response has begun, and no other can be sent")
        found = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if isinstance(exc, LineTooLong) else HTTPStatus(status)
        answer = status_response(found, found.phrase)
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:
        self.log_debug(*args, **kw)

    async def _tls_handshake(self, line: asyncio.Transport, tls: ssl.SSLContext) -> None:
        seconds = self._server.limits.header
        loop = asyncio.get_running_loop()
        try:
            secure = await loop.start_tls(
                line,
                self,
                tls,
                server_side=True,
                ssl_handshake_timeout=seconds,
                ssl_shutdown_timeout=_CLOSE_SECONDS,
            )
        except OSError:
            line.abort()
            self._leave()
            return
        if self._line is not None and secure is not None:
            self._begin(secure)

    def _begin(self, transport: asyncio.Transport) -> None:
        self._line = transport
        if self._deadline is None and not self._answering:
            self._await_header()
        super().connection_made(transport)

    def _await_header(self) -> None:
        self._deadline = asyncio.get_running_loop().call_later(self._server.limits.header, self._give_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        if self._line is not None:
            self._line.abort()

    def _leave(self) -> None:
        if self._address is not None:
            self._server.counts.leave(self._address)
            self._address = None

    def _end_request(self) -> None:
        if self._client is not None:
            self._server.proxied.leave(self._client)
            self._client = None

    def _forget_rejection(self) -> None:
        if self._reading_rejection:
            self._reading_rejection = False
            self._server.rejected.waiting -= 1

    def _reject(self, line: asyncio.Transport) -> None:
        self._rejected = True
        rejected = self._server.rejected
        if self._server.tls is not None or line.is_closing() or rejected.waiting >= _MOST_REJECTED:
            line.abort()
            return
        rejected.waiting += 1
        self._reading_rejection = True
        line.write(_REJECTION)
        with suppress(OSError, NotImplementedError):
            line.write_eof()
        self._deadline = asyncio.get_running_loop().call_later(_REJECT_SECONDS, self._give_up)


def reset(transport: asyncio.BaseTransport) -> None:
    """End a connection at once: what waits in the kernel to be sent is dropped, not sent."""
    found: socket.socket | None = transport.get_extra_info("socket")
    if found is not None:
        with suppress(OSError):  # closed already
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()


def _bound_writing(line: asyncio.Transport, seconds: float) -> None:
    found: socket.socket | None = line.get_extra_info("socket")
    if found is not None and found.family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError, AttributeError):  # closed already, or not Linux
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1000))
