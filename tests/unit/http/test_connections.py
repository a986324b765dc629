"""Connection limits over real sockets: counts, headers that never end, clients that do not read; plain and with TLS."""

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from p2pmodel.errors import InvalidInput
from p2pmodel.http.connections import ConnectionLimits, RejectedConnections
from p2pmodel.http.server import serving, serving_unix
from p2pmodel.tls import client_context, server_context
from tests.support.certificates import authority, issued
from tests.support.eventually import PATIENCE
from tests.support.raw_http import Answer, Line, line, request

QUICK = ConnectionLimits(most=1, header=0.2, stall=0.3)
"""One place: that it is free again shows in the next client's answer."""


class Place:
    """A server, and how its clients connect."""

    def __init__(self, url: str, tls: ssl.SSLContext | None) -> None:
        self.url = url
        self._tls = tls

    def line(self, source: str | None = None, *, plain: bool = False) -> AbstractAsyncContextManager[Line]:
        return line(self.url, source=source, tls=None if plain else self._tls)

    async def ask(self, path: str = "/", source: str | None = None) -> Answer:
        async with self.line(source) as client:
            await client.send(request(path))
            return await client.answer()

    async def until_free(self) -> None:
        """Wait until the one place is."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    if (await self.ask()).status == 200:
                        return
                except (OSError, asyncio.IncompleteReadError):
                    pass
                await asyncio.sleep(0.02)


async def hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


async def broken(_request: web.Request) -> web.Response:
    raise KeyError("secret")


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(bytes(1 << 20))


async def large(_request: web.Request) -> web.Response:
    return web.Response(body=bytes(64 << 20))


async def events(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b":\n\n")
        await asyncio.sleep(0.02)


@asynccontextmanager
async def place(limits: ConnectionLimits, folder: Path | None = None) -> AsyncIterator[Place]:
    """With a `folder` for its certificate, over TLS."""
    app = web.Application()
    for path, handler in (("/", hello), ("/broken", broken), ("/endless", endless), ("/large", large)):
        app.router.add_get(path, handler)
    app.router.add_get("/events", events)
    ours = theirs = None
    if folder is not None:
        ca, ours = authority(folder)
        theirs = client_context(ca, None, None)
    async with serving(app, "127.0.0.1", 0, grace=0.1, limits=limits, tls=ours) as url:
        assert url.startswith("https:" if folder else "http:")
        yield Place(url, theirs)


@pytest.fixture(params=["plain", "tls"])
async def one(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """A server with one place."""
    async with place(QUICK, tmp_path if request.param == "tls" else None) as found:
        yield found


async def test_a_silent_client_is_disconnected(one: Place) -> None:
    async with one.line() as silent:
        assert (await silent.end()).raw == b""
        await one.until_free()


async def test_a_slow_header_is_disconnected(one: Place) -> None:
    async with one.line() as slow:
        await slow.send(b"GET / HTTP/1.1\r\n", *[b"X: y\r\n"] * 100, pause=0.02)
        assert (await slow.end()).raw == b""
        await one.until_free()


async def test_a_slow_second_header_is_disconnected(one: Place) -> None:
    async with one.line() as slow:
        await slow.send(request("/"))
        assert (await slow.answer()).status == 200
        await slow.send(b"GET / HTTP/1.1\r\nX: ", *[b"y"] * 100, pause=0.02)
        assert (await slow.end()).raw == b""
        await one.until_free()


@pytest.mark.parametrize("path", ["/endless", "/large"])
async def test_a_client_that_does_not_read_is_disconnected(one: Place, path: str) -> None:
    async with one.line() as deaf:
        deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await deaf.send(request(path))
        await one.until_free()


async def test_a_live_stream_continues_and_counts(one: Place) -> None:
    async with one.line() as watching:
        await watching.send(request("/events"))
        assert (await watching.head()).status == 200
        for _ in range(3):
            await asyncio.sleep(QUICK.stall)
            assert await watching.some()
        with pytest.raises((OSError, asyncio.IncompleteReadError, AssertionError)):
            assert (await one.ask()).status == 200
    await one.until_free()


async def test_an_idle_connection_may_be_used_again(one: Place) -> None:
    async with one.line() as idle:
        for _ in range(3):
            await idle.send(request("/"))
            assert (await idle.answer()).status == 200
            await asyncio.sleep(2 * QUICK.header)


async def test_a_rejected_connection_gets_a_response(tmp_path: Path) -> None:
    async with place(ConnectionLimits(most=2, most_each=1)) as busy, busy.line() as first:
        await first.send(request("/"))
        assert (await first.answer()).status == 200
        async with busy.line() as second:
            told = await second.end()
        assert (told.status, told.headers["retry-after"]) == (503, "5")
        assert json.loads(told.body).keys() == {"code", "message", "hint"}
        assert (await busy.ask(source="127.0.0.2")).status == 200, "another address has a limit of its own"


async def test_the_total_is_limited_too() -> None:
    async with place(ConnectionLimits(most=1)) as full, full.line() as first:
        await first.send(request("/"))
        await first.answer()
        assert (await full.ask(source="127.0.0.2")).status == 503


def test_rejected_connections_are_one_line_a_minute() -> None:
    notes: list[str] = []
    times = iter((0.0, 1.0, 59.0, 60.0, 61.0, 500.0))
    rejected = RejectedConnections(notes.append, lambda: next(times))
    for _ in range(6):
        rejected.add("10.0.0.7")
    assert [note.split(",")[0] for note in notes] == [f"connections refused: {count}" for count in (1, 3, 2)]


async def test_a_handshake_that_never_ends_counts_until_its_timeout(tmp_path: Path) -> None:
    async with place(QUICK, tmp_path) as secure:
        async with secure.line(plain=True) as silent:
            assert (await silent.end()).raw == b""
            await secure.until_free()
        async with secure.line(plain=True) as lost:
            await lost.send(request("/"))
            await lost.end()
            await secure.until_free()
        async with secure.line(plain=True) as hanging:
            await hanging.send(b"\x16\x03\x01\x02\x00\x01")


async def test_hanging_handshakes_do_not_delay_the_end(tmp_path: Path) -> None:
    async with asyncio.timeout(PATIENCE):
        async with place(ConnectionLimits(header=2 * PATIENCE), tmp_path) as secure, secure.line(plain=True):
            await asyncio.sleep(0.05)


JUNK = [
    b"\r\n\r\n\r\n",
    b"HELLO\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
    b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET /\x00 HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]


@pytest.mark.parametrize("junk", JUNK)
async def test_malformed_http_is_refused_in_json_and_not_logged(junk: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "aiohttp"):
        async with place(ConnectionLimits(header=0.2)) as some, some.line() as client:
            await client.send(junk)
            refused(await client.end(), 400)
    assert "Traceback" not in caplog.text


LONG = b"x" * 100_000


@pytest.mark.parametrize(
    "oversize",
    [
        b"GET /" + LONG + b" HTTP/1.1\r\n\r\n",
        b"GET /" + LONG,
        b"GET / HTTP/1.1\r\nX: " + LONG,
        b"GET / HTTP/1.1\r\n" + LONG + b": y\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
    ],
    ids=["line", "endless line", "header", "name", "headers"],
)
async def test_too_long_requests_are_refused(oversize: bytes) -> None:
    async with place(ConnectionLimits(header=2 * PATIENCE)) as some, some.line() as client:
        await client.send(oversize)
        refused(await client.end(), 400, 431)
        assert (await some.ask()).status == 200


def refused(answer: Answer, *statuses: int) -> None:
    """The response has one of `statuses` and a JSON error, or is empty."""
    if answer.raw:
        assert answer.status in statuses, answer.raw[:200]
        assert json.loads(answer.body).keys() == {"code", "message", "hint"}


async def test_a_bug_and_an_unmet_expectation_are_json_too(caplog: pytest.LogCaptureFixture) -> None:
    async with place(ConnectionLimits()) as some:
        bug = await some.ask("/broken")
        assert (bug.status, json.loads(bug.body)["code"]) == (500, "internal_server_error")
        assert b"secret" not in bug.raw
        async with some.line() as client:
            await client.send(request("/", headers=[("Expect", "wonders")]))
            assert json.loads((await client.answer()).body)["code"] == "expectation_failed"
    assert not caplog.text


async def test_only_clients_with_a_certificate_are_admitted(tmp_path: Path) -> None:
    ca, _ = authority(tmp_path)
    certificate, key = tmp_path / "ca.pem", tmp_path / "key.pem"
    mine = issued(tmp_path, "client")
    app = web.Application()
    app.router.add_get("/", hello)
    async with (
        serving(app, "127.0.0.1", 0, tls=server_context(certificate, key, ca)) as url,
        aiohttp.ClientSession() as session,
    ):
        with pytest.raises(aiohttp.ClientError):
            await session.get(url, ssl=client_context(ca, None, None))
        async with session.get(url, ssl=client_context(ca, *mine)) as answer:
            assert await answer.text() == "hello"


def test_unusable_certificate_files_are_refused(tmp_path: Path) -> None:
    ca, _ = authority(tmp_path)
    key, other = tmp_path / "key.pem", issued(tmp_path, "other")[1]
    for certificate, private, said in (
        (tmp_path / "none", key, "none cannot be read: No such file"),
        (ca, tmp_path, "cannot be read: Is a directory"),
        (ca, other, "they do not belong together"),
        (ca, ca, "no PEM file of its kind"),
    ):
        private.chmod(0o700)
        with pytest.raises(InvalidInput, match=said):
            server_context(certificate, private)
    key.chmod(0o644)
    with pytest.raises(InvalidInput, match=r"others can read the TLS key .*; chmod 600"):
        server_context(ca, key)


async def test_a_unix_socket_has_limits_too(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    app = web.Application()
    app.router.add_get("/", hello)
    async with serving_unix(app, path, grace=0.1, limits=ConnectionLimits(most=1, most_each=1)):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(request("/"))
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        full, other = await asyncio.open_unix_connection(str(path))
        assert (await full.readline()).startswith(b"HTTP/1.1 503 ")
        for each in (writer, other):
            each.close()
            await each.wait_closed()
