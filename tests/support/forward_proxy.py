"""A forward proxy on loopback: requests with absolute URLs, and tunnels by CONNECT."""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Self

from yarl import URL


@dataclass
class ForwardProxy:
    """`async with` runs it. `answer`: the status of every response, instead of forwarding. `asked`: what it was asked,
    as in `GET http://host/path` and `CONNECT host:443`; `credentials`: each request's Proxy-Authorization."""

    answer: str = ""
    asked: list[str] = field(default_factory=list)
    credentials: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def name(self) -> str:
        """Its host and port."""
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _ = head[0].split(" ")
            headers = dict(line.split(": ", 1) for line in head[1:] if line)
            self.asked.append(f"{method} {target}")
            self.credentials.append(headers.pop("Proxy-Authorization", ""))
            if self.answer:
                writer.write(f"HTTP/1.1 {self.answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
                await writer.drain()
                return
            url = URL(f"//{target}" if method == "CONNECT" else target, encoded=True)
            far_reader, far_writer = await asyncio.open_connection(url.host, url.port)
            with contextlib.closing(far_writer):
                if method == "CONNECT":
                    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    lines = [f"{method} {url.raw_path_qs} HTTP/1.1", "Connection: close"]
                    lines += [f"{name}: {value}" for name, value in headers.items() if name != "Connection"]
                    far_writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
                await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
