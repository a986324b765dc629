"""HTTP without a client library: raw bytes to a socket, and the raw response."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.support.eventually import PATIENCE


@dataclass(frozen=True)
class Answer:
    """A response; status 0 if the connection ended without one."""

    raw: bytes

    @property
    def status(self) -> int:
        return int(self.raw.split(b" ", 2)[1]) if self.raw.startswith(b"HTTP/1.") else 0

    @property
    def headers(self) -> dict[str, str]:
        lines = self.raw.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]


class Line:
    """A connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def send(self, *parts: bytes, pause: float = 0.0) -> None:
        """Send `parts`, one after the other; what the other side takes of them is its affair."""
        with suppress(ConnectionError):
            for part in parts:
                self.writer.write(part)
                await self.writer.drain()
                if pause:
                    await asyncio.sleep(pause)

    async def head(self) -> Answer:
        """The next answer, without its body."""
        async with asyncio.timeout(PATIENCE):
            return Answer(await self._reader.readuntil(b"\r\n\r\n"))

    async def answer(self) -> Answer:
        """The next response with a declared length."""
        head = await self.head()
        return Answer(head.raw + await self.body(int(head.headers.get("content-length", 0))))

    async def body(self, length: int) -> bytes:
        """The next `length` bytes."""
        async with asyncio.timeout(PATIENCE):
            return await self._reader.readexactly(length)

    async def some(self) -> bytes:
        """The bytes available; empty once the other side has closed."""
        async with asyncio.timeout(PATIENCE):
            return await self._reader.read(1 << 16)

    async def end(self) -> Answer:
        """All until the other side ends the connection."""
        data = bytearray()
        async with asyncio.timeout(PATIENCE):
            with suppress(ConnectionError):
                while part := await self._reader.read(1 << 16):
                    data += part
        return Answer(bytes(data))


@asynccontextmanager
async def line(url: str, *, source: str | None = None, tls: ssl.SSLContext | None = None) -> AsyncIterator[Line]:
    """A connection to the server at `url`, from the address `source`."""
    parts = urlsplit(url)
    options: dict[str, Any] = {"local_addr": (source, 0)} if source else {}
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=tls, **options)
    try:
        yield Line(reader, writer)
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


def request(path: str, method: str = "GET", *, body: bytes = b"", headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """A request that makes sense."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
