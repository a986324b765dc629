"""Responses to GET and HEAD of a file: validators, one range, sendfile, and a timeout for stalled clients.

Ranges and validators are those of RFC 9110, sections 13 and 14.
"""

import asyncio
import os
import re
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import BinaryIO

from aiohttp import web

from p2pmodel.core.pace import Pace
from p2pmodel.errors import P2PModelError
from p2pmodel.http.access_log import SENT

_UNIT = re.compile(r"bytes[ \t]*=(.*)", re.IGNORECASE)
# 19 digits cover every file size; longer numbers are ignored.
_SPEC = re.compile(r"[ \t]*(?:([0-9]{1,19})-([0-9]{0,19})|-([0-9]{1,19}))[ \t]*")
_ETAG = re.compile(r'"([^"]*)"')


class RangeNotSatisfiable(ValueError):
    """The range starts behind the end of a file of `size` bytes; the response is 416."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the range lies behind the end of {size} bytes")
        self.size = size

    @property
    def content_range(self) -> str:
        """Value of the Content-Range header of the 416."""
        return f"bytes */{self.size}"


@dataclass(frozen=True, slots=True)
class ByteRange:
    """`length` bytes (at least one) from `start`, inside a file of `size` bytes."""

    start: int
    length: int
    size: int

    @property
    def content_range(self) -> str:
        """Value of the Content-Range header of the 206."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{self.size}"


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The single range in a Range header for a file of `size` bytes; None means the whole file.

    None also for all that a server may ignore by RFC 9110: no header, another unit, malformed ranges, several ranges,
    and a suffix of an empty file. Raises RangeNotSatisfiable.
    """
    unit = _UNIT.fullmatch(header or "")
    spec = _SPEC.fullmatch(unit[1]) if unit else None
    if spec is None:
        return None
    first, last, suffix = spec.groups()
    if suffix is not None:
        return _suffix(int(suffix), size)
    start = int(first)
    end = int(last) if last else max(start, size - 1)
    if end < start:
        return None
    if start >= size:
        raise RangeNotSatisfiable(size)
    return ByteRange(start, min(end, size - 1) - start + 1, size)


def _suffix(length: int, size: int) -> ByteRange | None:
    if length == 0:
        raise RangeNotSatisfiable(size)
    length = min(length, size)
    return ByteRange(size - length, length, size) if size else None


def not_modified(if_none_match: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names `etag` (unquoted), by weak comparison, or is `*`."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or etag in _ETAG.findall(if_none_match)


def range_applies(if_range: str | None, etag: str) -> bool:
    """Whether a Range applies: there is no If-Range header, or it is `etag` as a strong validator.

    A date never applies: files here have no modification time.
    """
    return if_range is None or if_range.strip() == f'"{etag}"'


# struct tcp_info of linux/tcp.h: tcpi_bytes_acked, since Linux 4.1.
_BYTES_ACKED = struct.Struct("=Q")
_OFFSET = 120


class Delivery:
    """Counts the acknowledged bytes of one response on `transport`; create it before the response is sent.

    A cancelled or failed sendfile does not return how much of its chunk it sent. The rest of the socket buffer is lost
    when the client disconnects. `head` is the size of status line and headers.
    """

    def __init__(self, transport: asyncio.BaseTransport | None) -> None:
        self._socket = transport.get_extra_info("socket") if transport is not None else None
        self._before = self._acknowledged()
        self.head = 0

    def body_bytes(self, otherwise: int) -> int:
        """Body bytes acknowledged so far; `otherwise` if the kernel does not report them."""
        now = self._acknowledged()
        if now is None or self._before is None:
            return otherwise
        return max(0, now - self._before - self.head)

    def _acknowledged(self) -> int | None:
        if self._socket is None:
            return None
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _OFFSET + _BYTES_ACKED.size)
            acknowledged: int = _BYTES_ACKED.unpack_from(info, _OFFSET)[0]
        except (OSError, AttributeError, struct.error):  # closed, not TCP, not Linux, or an old kernel
            return None
        return acknowledged


STALL = web.AppKey("STALL", float)
"""Key of an application for the seconds that a client has to read a chunk before its connection is closed."""

FIRST_BYTE = 4.0
"""Seconds to wait for the first byte of a growing file before the headers are sent. Hub clients wait 10 s in all, part
of which is spent before the file is open."""

_CHUNK = 4 << 20
_COPY = 512 << 10
"""Bytes at a time where sendfile is not possible, as over TLS. For 256 KiB a GB took 1.2 times the CPU time, for 1 MiB
0.95 times; a slow client holds two of them in memory."""
_CLIENT_CHECK_SECONDS = 1.0
_ZEROS = bytes(_COPY)


@dataclass(frozen=True, slots=True)
class FileContent:
    """The content of a response: `size` bytes of `file` (zeros if None) with the validator `etag` and `headers`.

    `ready(offset)`, for a growing file, waits for that byte and returns the offset up to which the file can be read;
    an error before the first byte becomes the response. Without `ranges` every response is the whole file.
    """

    size: int
    etag: str
    file: BinaryIO | None
    headers: Mapping[str, str]
    ready: Callable[[int], Awaitable[int]] | None = None
    ranges: bool = True


async def answer(request: web.Request, content: FileContent, *, pace: Pace | None = None) -> web.StreamResponse:
    """Answer `request` with `content`: 200, 206, 304 or 416 (RFC 9110). The caller closes the file.

    `request[SENT]` is the number of body bytes sent, also if the client disconnects, which raises no error. A body is
    never compressed.
    """
    accepted = "bytes" if content.ranges else "none"
    headers = {**content.headers, "ETag": f'"{content.etag}"', "Accept-Ranges": accepted}
    if not_modified(request.headers.get("If-None-Match"), content.etag):
        return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    try:
        part = _part(request, content)
    except RangeNotSatisfiable as error:
        headers["Content-Range"] = error.content_range
        return web.Response(status=HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers=headers)
    whole = ByteRange(0, content.size, content.size)
    response = web.StreamResponse(headers=headers)
    if part is not None:
        response.set_status(HTTPStatus.PARTIAL_CONTENT)
        response.headers["Content-Range"] = part.content_range
    chosen = part or whole
    response.content_type = "application/octet-stream"
    response.content_length = chosen.length
    if content.ready is not None and chosen.length:
        await _first_byte(request, content.ready, chosen.start)
    await _send(request, response, content, chosen, pace)
    return response


async def _first_byte(request: web.Request, ready: Callable[[int], Awaitable[int]], offset: int) -> None:
    """Wait a bounded time for the first byte, so that a missing file gets its own status instead of a cut body."""
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(FIRST_BYTE):
            await _readable(request, ready, offset)


async def _readable(request: web.Request, ready: Callable[[int], Awaitable[int]], offset: int) -> int:
    """The result of `ready`. Polls for a disconnected client, which aiohttp does not report to a waiting handler."""
    while True:
        if request.transport is None or request.transport.is_closing():
            raise ConnectionResetError("the client has disconnected")
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLIENT_CHECK_SECONDS):
                return await ready(offset)


def _part(request: web.Request, content: FileContent) -> ByteRange | None:
    if (
        request.method != "GET"
        or not content.ranges
        or not range_applies(request.headers.get("If-Range"), content.etag)
    ):
        return None
    return parse_range(request.headers.get("Range"), content.size)


async def _send(
    request: web.Request, response: web.StreamResponse, content: FileContent, part: ByteRange, pace: Pace | None
) -> None:
    """Send headers and body. Abort the connection if the client is lost or stalled, or the file ends early."""
    request[SENT] = 0
    delivery = Delivery(request.transport)
    try:
        writer = await response.prepare(request)
        delivery.head = writer.output_size if writer is not None else 0
        if request.method != "HEAD":
            await _send_body(request, response, content, part, pace)
    except (ConnectionError, TimeoutError, _EndedEarly, P2PModelError):
        request[SENT] = delivery.body_bytes(request[SENT])
        # The status is sent already, so only an aborted connection shows that the body is incomplete.
        if request.transport is not None:
            request.transport.abort()
    except asyncio.CancelledError:
        request[SENT] = delivery.body_bytes(request[SENT])
        raise


async def _send_body(
    request: web.Request, response: web.StreamResponse, content: FileContent, part: ByteRange, pace: Pace | None
) -> None:
    offset, end = part.start, part.start + part.length
    file, limit = content.file, end if content.ready is None else offset
    stall = request.config_dict[STALL]
    send = partial(_send_zeros, request, response) if file is None else partial(_send_chunk, request, response, file)
    while offset < end:
        if offset >= limit and content.ready is not None:
            limit = min(end, await _readable(request, content.ready, offset))
        count = min(limit - offset, _CHUNK)
        if pace is not None:
            count = min(count, pace.block)
            await pace.reserve(count)
        async with asyncio.timeout(stall):
            offset += await send(offset, count)


class _EndedEarly(Exception):
    """The file has fewer bytes than it had when it was opened."""


async def _send_chunk(
    request: web.Request, response: web.StreamResponse, file: BinaryIO, offset: int, count: int
) -> int:
    """Send `count` bytes of `file` from `offset` with sendfile; returns the number sent, less only on a fallback."""
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client has disconnected")
    try:
        sent = await asyncio.get_running_loop().sendfile(transport, file, offset, count, fallback=False)
    except RuntimeError:
        # SendfileNotAvailableError: unsupported by the file system, or the client is gone; then writing raises.
        return await _copy_chunk(request, response, file, offset, min(count, _COPY))
    request[SENT] += sent
    if sent < count:
        raise _EndedEarly
    return sent


async def _copy_chunk(
    request: web.Request, response: web.StreamResponse, file: BinaryIO, offset: int, count: int
) -> int:
    data = await asyncio.to_thread(os.pread, file.fileno(), count, offset)
    if not data:
        raise _EndedEarly
    await response.write(data)
    request[SENT] += len(data)
    return len(data)


async def _send_zeros(request: web.Request, response: web.StreamResponse, _offset: int, count: int) -> int:
    count = min(count, _COPY)
    await response.write(_ZEROS[:count])
    request[SENT] += count
    return count
