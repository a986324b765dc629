"""Listening: addresses, exposure, bind errors, and an end that hanging clients cannot delay."""

import asyncio
import contextlib
import socket

import pytest
from aiohttp import ClientError, ClientSession, web

from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.errors import InvalidInput, LocalResource
from p2pmodel.http.server import check_exposure, serving
from tests.support.eventually import PATIENCE


async def _hello(request: web.Request) -> web.Response:
    return web.Response(text="hello")


async def _hang(request: web.Request) -> web.Response:
    await asyncio.sleep(3600)
    raise AssertionError


def _app() -> web.Application:
    app = web.Application()
    app.add_routes([web.get("/", _hello), web.get("/hang", _hang)])
    return app


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8090", "127.0.0.1", 8090),
        ("0.0.0.0:0", "0.0.0.0", 0),
        ("[::1]:80", "::1", 80),
        ("node-3.rack:65535", "node-3.rack", 65535),
    ],
)
def test_an_address_parses_and_prints_back(text: str, host: str, port: int) -> None:
    address = ListenAddress.parse(text)
    assert (address.host, address.port) == (host, port)
    assert str(address) == text


@pytest.mark.parametrize("text", ["", "8090", ":8090", "127.0.0.1", "127.0.0.1:", "::1:80", "a b:1", "h:65536", "h:-1"])
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="ADDRESS:PORT"):
        ListenAddress.parse(text)


@pytest.mark.parametrize("text", ["127.0.0.1:1", "127.8.9.10:1", "localhost:1", "[::1]:1"])
def test_loopback_needs_no_token(text: str) -> None:
    check_exposure(ListenAddress.parse(text), protected=False)


@pytest.mark.parametrize("text", ["0.0.0.0:1", "10.0.0.3:1", "[::]:1", "some-host:1"])
def test_a_reachable_address_needs_a_token_or_insecure_public(text: str) -> None:
    address = ListenAddress.parse(text)
    with pytest.raises(InvalidInput, match="--insecure-public") as error:
        check_exposure(address, protected=False)
    assert "\n" not in str(error.value)
    check_exposure(address, protected=True)
    check_exposure(address, protected=False, insecure_public=True)


async def test_the_yielded_url_answers_and_is_free_afterwards() -> None:
    async with serving(_app(), "127.0.0.49", 0) as base, ClientSession() as session, session.get(base) as answer:
        assert await answer.text() == "hello"
    port = int(base.rpartition(":")[2])
    async with serving(_app(), "127.0.0.49", port) as again:
        assert again == base


async def test_a_port_in_use_is_a_local_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(LocalResource, match=f"127.0.0.1:{port}: the port is in use"):
            async with serving(_app(), "127.0.0.1", port):
                pass


async def test_an_address_of_another_machine_is_a_local_error() -> None:
    with pytest.raises(LocalResource, match="does not have that address"):
        async with serving(_app(), "192.0.2.1", 0):
            pass


async def test_an_unknown_host_is_a_local_error() -> None:
    with pytest.raises(LocalResource, match="no such host"):
        async with serving(_app(), "no-such-host.invalid", 0):
            pass


async def test_hanging_requests_cannot_delay_the_end() -> None:
    async with ClientSession() as session, contextlib.AsyncExitStack() as stack:
        base = await stack.enter_async_context(serving(_app(), "127.0.0.1", 0, grace=0.2))
        request = asyncio.ensure_future(session.get(base + "/hang"))
        silent = socket.create_connection(("127.0.0.1", int(base.rpartition(":")[2])))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(PATIENCE):
            await stack.aclose()
        silent.close()
        with pytest.raises(ClientError):
            await asyncio.wait_for(request, PATIENCE)


@pytest.mark.parametrize("steps", range(6))
async def test_a_connection_that_is_accepted_at_the_end_is_closed(steps: int) -> None:
    async with serving(_app(), "127.0.0.1", 0, grace=0.1) as base:
        client = socket.create_connection(("127.0.0.1", int(base.rpartition(":")[2])), PATIENCE)
        for _ in range(steps):  # the loop accepts it in one of them, and in a later one its handler begins
            await asyncio.sleep(0)
    with client, contextlib.suppress(ConnectionResetError):
        assert client.recv(1) == b""
