"""The request limits of both addresses of a daemon: rate, time and size; real sockets, short limits."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from p2pmodel.config.sections.http import HttpSettings
from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.http import event_streams
from p2pmodel.http.exposition import Traffic
from p2pmodel.http.limits import connections
from p2pmodel.http.server import serving, serving_unix
from p2pmodel.node.node import Node
from p2pmodel.service.control.api import NodeApi
from p2pmodel.service.control.app import control_app
from p2pmodel.service.roles.hub_endpoint import HubRole, serving_hub
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_machine import Machine, machine
from tests.support.raw_http import Answer, line, request

__all__ = ["machine"]

SNAPSHOT = snapshot_of({"config.json": b"{}", "model.safetensors": bytes(range(256)) * 9000})
FILE = "/org/model/resolve/main/model.safetensors"
SHAPES = {"code", "message", "hint"}, {"error"}


@dataclass(frozen=True)
class Face:
    """One of the addresses: something to GET, something to POST to."""

    url: str
    get: str
    post: str

    async def ask(self, data: bytes, source: str | None = None) -> Answer:
        async with line(self.url, source=source) as client:
            await client.send(data)
            return await client.answer()


@dataclass(frozen=True)
class Faces:
    """Both, of one node with the settings of the test's parameter."""

    control: Face
    hub: Face
    node: Node
    machine: Machine
    http: HttpSettings

    def __iter__(self):
        return iter((self.control, self.hub))


@pytest.fixture
async def faces(machine: Machine, request: pytest.FixtureRequest) -> AsyncIterator[Faces]:
    http = HttpSettings(**getattr(request, "param", {}))
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(FakeHub(SNAPSHOT))
        machine.use(mirrors=(MirrorSettings(name="hub", endpoint=hub.url),), offline=False, http=http)
        node = await stack.enter_async_context(machine.running())
        role = HubRole(ListenAddress("127.0.0.1", 0))
        endpoint = await stack.enter_async_context(serving_hub(node, role, machine.notes.append, 0.1, Traffic()))
        app = control_app(NodeApi(node), http=http)
        control = await stack.enter_async_context(serving(app, "127.0.0.1", 0, grace=0.1, limits=connections(http)))
        assert endpoint is not None
        yield Faces(
            Face(control, "/api/v1/node", "/api/v1/transfers"),
            Face(endpoint, "/api/models/org/model", "/api/models/org/model/paths-info/main"),
            node,
            machine,
            http,
        )


def refused(answer: Answer, status: int) -> None:
    assert answer.status == status, answer.raw[:300]
    assert json.loads(answer.body).keys() in SHAPES


def headers(length: int) -> list[tuple[str, str]]:
    return [("Content-Type", "application/json"), ("Content-Length", str(length))]


@pytest.mark.parametrize("faces", [{"header_timeout": 0.2}], indirect=True)
async def test_a_header_that_never_ends(faces: Faces) -> None:
    for face in faces:
        async with line(face.url) as slow:
            await slow.send(b"GET / HTTP/1.1\r\n", *[b"X: y\r\n"] * 100, pause=0.02)
            assert (await slow.end()).raw == b""
        assert (await face.ask(request(face.get))).status == 200


@pytest.mark.parametrize("faces", [{"body_timeout": 0.2, "header_timeout": 60}], indirect=True)
async def test_a_body_that_never_ends(faces: Faces) -> None:
    chunked = [("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")]
    for face in faces:
        for head in (headers(1000), chunked):
            async with line(face.url) as slow:
                drips = request(face.post, "POST", headers=head), *[b"1\r\n{\r\n"] * 40
                _, answer = await asyncio.gather(slow.send(*drips, pause=0.02), slow.answer())
                refused(answer, 408)
                await slow.end()
        assert (await face.ask(request(face.get))).status == 200


async def test_a_body_that_is_too_large(faces: Faces) -> None:
    for face in faces:
        async with line(face.url) as client:
            await client.send(request(face.post, "POST", headers=headers(1 << 40)))
            refused(await client.answer(), 413)
            await client.end()


async def test_a_body_that_differs_from_its_header(faces: Faces) -> None:
    squeezed = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")]
    for face in faces:
        refused(await face.ask(request(face.post, "POST", headers=squeezed, body=b"{}")), 400)
        assert (await face.ask(request(face.get))).status == 200


@pytest.mark.parametrize("faces", [{"max_requests_per_second": 2}], indirect=True)
async def test_the_request_rate_of_an_address_is_limited(faces: Faces) -> None:
    for face in faces:
        answers = [await face.ask(request(face.get)) for _ in range(8)]
        late = [answer for answer in answers if answer.status == 429]
        assert [answer.status for answer in answers[:4]] == [200] * 4
        assert late
        for answer in late:
            refused(answer, 429)
            assert answer.headers["retry-after"] == "1"
        assert (await face.ask(request(face.get), source="127.0.0.3")).status == 200


@pytest.mark.parametrize("faces", [{"max_requests_per_second": 1}], indirect=True)
async def test_guesses_of_a_token_count(faces: Faces) -> None:
    app = control_app(NodeApi(faces.node), "sesame-sesame", http=faces.http)
    async with serving(app, "127.0.0.1", 0, grace=0.1) as url:
        guess = Face(url, "/api/v1/node", "")
        wrong = request(guess.get, headers=[("Authorization", "Bearer wrong")])
        assert [(await guess.ask(wrong)).status for _ in range(2)] == [401, 401]
        assert (await guess.ask(wrong)).status == 429


@pytest.mark.parametrize("faces", [{"max_requests_per_second": 1, "max_connections_per_address": 1}], indirect=True)
async def test_a_unix_socket_is_not_paced(faces: Faces) -> None:
    path = faces.machine.root / "d.sock"
    app = control_app(NodeApi(faces.node))
    async with serving_unix(app, path, grace=0.1, limits=connections(faces.http)):
        for _ in range(20):
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(request("/api/v1/node"))
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
            writer.close()
            await writer.wait_closed()


@pytest.mark.parametrize("faces", [{"header_timeout": 0.1, "stall_timeout": 0.2, "body_timeout": 0.1}], indirect=True)
async def test_a_watcher_is_not_cut_off(faces: Faces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_streams, "HEARTBEAT", 0.02)
    async with line(faces.control.url) as watching:
        await watching.send(request("/api/v1/events"))
        assert (await watching.head()).status == 200
        for _ in range(4):
            await asyncio.sleep(0.2)
            assert await watching.some()


@pytest.mark.parametrize("faces", [{"max_connections_per_address": 1}], indirect=True)
async def test_a_watcher_counts(faces: Faces) -> None:
    async with line(faces.control.url) as watching:
        await watching.send(request("/api/v1/events"))
        assert (await watching.head()).status == 200
        async with line(faces.control.url) as other:
            refused(await other.end(), 503)
        assert (await faces.control.ask(request(faces.control.get), source="127.0.0.3")).status == 200


async def test_many_workers_of_one_client_are_not_hindered(faces: Faces) -> None:
    """500 ranges at once, with the limits as they are unless set."""
    assert (await faces.hub.ask(request(FILE))).status == 200

    async def part(number: int) -> None:
        wanted = request(FILE, headers=[("Range", f"bytes={number}-{number}")])
        async with line(faces.hub.url) as client:
            await client.send(wanted)
            found = await client.answer()
        assert (found.status, found.body) == (206, bytes([number % 256]))

    await asyncio.gather(*(part(number) for number in range(500)))
