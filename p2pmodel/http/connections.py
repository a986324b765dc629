"""The connections of our servers: how many there may be, and how long each may keep us waiting.

aiohttp's handler is told of a connection when it is admitted, and, with TLS, when hands are shaken: until then it costs
a place and no more. What a client sends that is no HTTP is answered in the JSON of all refusals, and never logged.
Writing is bounded by the kernel (TCP_USER_TIMEOUT), which alone knows whether anything was taken.
"""

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from p2pmodel.core.addresses import neighbourhood
from p2pmodel.http.error_responses import plain_refusal, refused

_CLOSE_SECONDS = 10.0
"""For a TLS client to take the rest and say goodbye."""
_HEAR_OUT = 1.0
"""Seconds for who is sent away to read why."""
_FULL = b'{"code": "too_many_connections", "message": "there are too many connections", "hint": "try again later"}'
_SENT_AWAY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json; charset=utf-8\r\nRetry-After: 5\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(_FULL), _FULL)
)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """At most `most` connections, `most_each` from one address (None: any number). Seconds: `header`, for the TLS
    handshake and for the header of a request; `stall`, in which a client must take something of what it is sent."""

    most: int | None = None
    most_each: int | None = None
    header: float = 15.0
    stall: float = 120.0


class _ConnectionCounts:
    """Who is connected. Who has no address (a unix socket) counts for the whole alone."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._present: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Whether there is room; then it counts until `leave`."""
        most, each = self._limits.most, self._limits.most_each
        if most is not None and self._present.total() >= most:
            return False
        if address and each is not None and self._present[address] >= each:
            return False
        self._present[address] += 1
        return True

    def leave(self, address: str) -> None:
        """One of them is gone."""
        self._present[address] -= 1
        if not self._present[address]:
            del self._present[address]


class LimitedServer(web.Server):
    """aiohttp's server with `limits`, and TLS if `tls` is given; made of the one that an application made."""

    def __init__(
        self, of: web.Server, limits: ConnectionLimits, tls: ssl.SSLContext | None, options: Mapping[str, Any]
    ) -> None:
        super().__init__(of.request_handler, request_factory=self._made, **options)
        self._factory = of.request_factory
        self.limits = limits
        self.tls = tls
        self.census = _ConnectionCounts(limits)
        self.handshakes: set[asyncio.Task[None]] = set()

    def __call__(self) -> web.RequestHandler:
        """The handler of a new connection."""
        return _LimitedConnection(self, self._kwargs)

    async def shutdown(self, timeout: float | None = None) -> None:
        """As aiohttp's."""
        for handshake in list(self.handshakes):
            handshake.cancel()
        await asyncio.gather(*self.handshakes, return_exceptions=True)
        await super().shutdown(timeout)

    def _made(self, message: Any, payload: Any, protocol: web.RequestHandler, writer: Any, task: Any) -> Any:
        cast("_LimitedConnection", protocol).header_came()
        return self._factory(message, payload, protocol, writer, task)


class _LimitedConnection(web.RequestHandler):
    """One connection. It counts from its first moment to its last."""

    def __init__(self, server: LimitedServer, options: Mapping[str, Any]) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self._server = server
        self._address: str | None = None
        self._sent_away = False
        self._deadline: asyncio.TimerHandle | None = None
        self._answering = False
        self._line: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._line = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        address = neighbourhood(peer[0]) if isinstance(peer, tuple) else ""
        if not self._server.census.enter(address):
            self._send_away(self._line)
            return
        self._address = address
        _bound_writing(self._line, self._server.limits.stall)
        if self._server.tls is None:
            self._begin(self._line)
        else:
            handshake = asyncio.ensure_future(self._shake_hands(self._line, self._server.tls))
            self._server.handshakes.add(handshake)
            handshake.add_done_callback(self._server.handshakes.discard)

    def data_received(self, data: bytes) -> None:
        if self._sent_away:
            return
        super().data_received(data)
        # Most requests come whole: those need no clock.
        if data and not self._answering and not self._messages and self._deadline is None:
            self._await_header()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._line = None
        self._stop_waiting()
        self._leave()
        task = self._task_handler
        super().connection_lost(exc)
        if task is not None and not self._answering:
            task.cancel()  # it waits for the rest of a body that nobody sends any more

    def header_came(self) -> None:
        """A request begins."""
        self._answering = True
        self._stop_waiting()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if isinstance(resp, web.HTTPError):
            resp = refused(resp)
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._answering = False

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  says what the client sent
    ) -> web.StreamResponse:
        self.log_exception("request failed", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun, and cannot become another")
        found = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if isinstance(exc, LineTooLong) else HTTPStatus(status)
        answer = plain_refusal(found, found.phrase)
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:
        self.log_debug(*args, **kw)

    async def _shake_hands(self, line: asyncio.Transport, tls: ssl.SSLContext) -> None:
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
            self._server.census.leave(self._address)
            self._address = None

    def _send_away(self, line: asyncio.Transport) -> None:
        self._sent_away = True
        if self._server.tls is not None or line.is_closing():
            line.abort()
            return
        line.write(_SENT_AWAY)
        with suppress(OSError, NotImplementedError):
            line.write_eof()
        self._deadline = asyncio.get_running_loop().call_later(_HEAR_OUT, self._give_up)


def _bound_writing(line: asyncio.Transport, seconds: float) -> None:
    found: socket.socket | None = line.get_extra_info("socket")
    if found is not None and found.family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError, AttributeError):  # gone already, or not Linux
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1000))
