"""The client of the control API: the daemon's values and errors are returned unchanged."""

import asyncio
import gzip
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from p2pmodel.client import Client, DaemonOrder, NoDaemon
from p2pmodel.core.content.names import RepoId
from p2pmodel.core.content.request_window import FileRange
from p2pmodel.core.progress.views import LimitsView, RateLimits, TransferView
from p2pmodel.errors import (
    AccessDenied,
    Conflict,
    EntryNotFound,
    InvalidInput,
    LocalResource,
    NotFound,
    P2PModelError,
    Unavailable,
)
from p2pmodel.http.server import serving_unix
from p2pmodel.node.node import Node
from p2pmodel.service.control.api import NodeApi
from p2pmodel.service.control.app import control_app
from tests.support.eventually import PATIENCE
from tests.support.node_machine import Machine, machine, until_state
from tests.support.node_swarm import CONTENTS

__all__ = ["machine"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "d.sock"


@pytest.fixture
async def node(machine: Machine, path: Path) -> AsyncIterator[Node]:
    async with machine.running() as node, serving_unix(control_app(NodeApi(node)), path, grace=0.2):
        yield node


@pytest.fixture
async def client(node: Node, path: Path) -> AsyncIterator[Client]:
    async with Client(path) as client:
        yield client


async def test_every_call(machine: Machine, node: Node, client: Client) -> None:
    assert (await client.node()).cache_dir == str(machine.settings.cache_dir)
    assert await client.transfers() == ()
    await machine.seeder()
    begun = await client.start(machine.swarm.metainfo.raw, include=["*.json"], priority=2)
    await until_state(node, begun.id, "seeding")
    view = await client.transfer(begun.id)
    assert view == node.transfer(begun.id)
    assert (await client.pause(begun.id)).state == "paused"
    assert (await client.resume(begun.id)).state in ("ready", "seeding")
    assert (await client.prioritise(begun.id, -1)).priority == -1
    assert (await client.engine(begun.id, "loaded", seconds=9.0)).engine_ready
    assert [s.repo for s in await client.snapshots()] == ["org/model"]
    while not await client.connections(begun.id):  # noqa: ASYNC110 - after the pause it connects again
        await asyncio.sleep(0.02)
    [swarm] = await client.peers()
    assert (swarm.transfer, swarm.connections) == (begun.id, await client.connections(begun.id))
    assert await client.limit(RateLimits(1, 2)) == await client.limits() == LimitsView(1, 2, 1, 2)
    assert (await client.cancel(begun.id)).id == begun.id
    assert (await client.remove(f"org/model@{machine.swarm.snapshot.commit}")).freed >= 0
    assert await client.snapshots() == ()


async def test_the_order_of_a_load_beside_the_daemon(machine: Machine, client: Client, path: Path) -> None:
    manifest, order = machine.swarm.metainfo.manifest, DaemonOrder(path)
    places = [FileRange(manifest.files[-1].path, 0, 1)]
    assert not await order.request(manifest.repo, manifest.commit, places), "there is no transfer"
    ident = (await client.start(machine.swarm.metainfo.raw)).id
    while not (found := await client.first(ident, places)).in_swarm:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    assert found.pieces == 1
    assert await order.request(manifest.repo, manifest.commit, places)


async def test_without_a_daemon_there_is_no_order(path: Path) -> None:
    assert not await DaemonOrder(path).request(RepoId("org/model"), "0" * 40, [])


async def test_watching_to_the_end(machine: Machine, node: Node, client: Client) -> None:
    await machine.seeder()
    ident = (await client.start(machine.swarm.metainfo.raw)).id
    seen: list[TransferView | str] = []
    async for state in client.watch(ident):
        seen.append(state)
        if isinstance(state, TransferView) and state.state == "seeding":
            await node.cancel(ident)
    assert seen[-1] == ident
    assert all(isinstance(state, TransferView) for state in seen[:-1])
    assert machine.published() == CONTENTS


async def test_errors_are_raised_with_their_class(machine: Machine, client: Client) -> None:
    with pytest.raises(NotFound, match="there is no transfer"):
        await client.transfer("0123456789ab")
    with pytest.raises(EntryNotFound, match="no file of org/model matches"):
        await client.start(machine.swarm.metainfo.raw, include=["*.gguf"])
    with pytest.raises(NotFound):
        async for _ in client.watch("0123456789ab"):
            pass


async def test_no_daemon(path: Path) -> None:
    async with Client(path) as client:
        with pytest.raises(NoDaemon, match=f"no daemon is running .looked for {path}.; start one"):
            await client.transfers()


async def test_a_socket_of_another_user(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_args: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_unix_connection", refused)
    async with Client(path) as client:
        with pytest.raises(AccessDenied, match="belongs to another user"):
            await client.transfers()


async def test_one_that_stops_while_it_is_watched(machine: Machine, path: Path) -> None:
    async with Client(path) as client:

        async def watch() -> None:
            async for _ in client.watch():
                pass

        async with machine.running() as node, serving_unix(control_app(NodeApi(node)), path, grace=0.2):
            await node.start(machine_request(machine))
            watching = asyncio.create_task(watch())
            await asyncio.sleep(0.2)
            assert not watching.done()
        with pytest.raises(Unavailable, match="the daemon has stopped"):
            await asyncio.wait_for(watching, PATIENCE)


def machine_request(machine: Machine):
    from tests.support.node_machine import torrent

    return torrent(machine.swarm)


async def answering(path: Path, response: web.Response) -> P2PModelError:
    """The error of a client if the daemon answers that."""
    app = web.Application()

    async def handler(_request: web.Request) -> web.Response:
        return response

    app.router.add_get("/{tail:.*}", handler)
    async with serving_unix(app, path, grace=0.2), Client(path) as client:
        with pytest.raises(P2PModelError) as caught:
            await client.node()
    return caught.value


async def test_a_daemon_of_another_version(path: Path) -> None:
    error = await answering(path, web.json_response({"surprise": 1}))
    assert isinstance(error, Conflict)
    assert "restart the daemon" in str(error)


async def test_a_response_that_is_not_json(path: Path) -> None:
    for response, kind in (
        (web.Response(status=500, text="x"), Unavailable),
        (web.json_response([], status=502), Unavailable),
        (web.json_response({}, status=400), InvalidInput),
        (web.Response(status=401, text="x"), AccessDenied),
    ):
        assert type(await answering(path, response)) is kind


async def test_an_unknown_error_code(path: Path) -> None:
    plain = {"code": "new_kind", "message": "what", "hint": "do"}
    error = await answering(path, web.json_response(plain, status=500))
    assert (type(error), str(error)) == (P2PModelError, "what; do")


async def test_wrong_bytes_come_back_without_their_parts(path: Path) -> None:
    plain = {"code": "wrong_bytes", "message": "m sent wrong bytes", "hint": ""}
    assert (await answering(path, web.json_response(plain, status=500))).exit_code == 5


async def test_the_socket_is_for_this_user_and_is_removed_with_the_daemon(path: Path) -> None:
    async with serving_unix(web.Application(), path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600  # noqa: ASYNC240
        with pytest.raises(LocalResource, match="a daemon is running already"):
            async with serving_unix(web.Application(), path):
                pass
    assert not path.exists()  # noqa: ASYNC240


async def test_a_socket_that_a_kill_left_is_replaced(path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with serving_unix(web.Application(), path):
        pass
    path.write_text("a file")  # noqa: ASYNC240
    with pytest.raises(LocalResource, match="is not a socket of a daemon"):
        async with serving_unix(web.Application(), path):
            pass
    assert path.read_text() == "a file"  # noqa: ASYNC240


async def test_an_impossible_socket_path(tmp_path: Path) -> None:
    with pytest.raises(LocalResource, match="path of the socket is too long"):
        async with serving_unix(web.Application(), tmp_path / ("x" * 200)):
            pass
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalResource):
        async with serving_unix(web.Application(), tmp_path / "file" / "d.sock"):
            pass


async def test_an_answer_without_a_bound_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pmodel.client.MAX_ANSWER", 1 << 20)
    error = await answering(path, web.Response(body=bytes(2 << 20)))
    assert isinstance(error, Conflict)
    assert "the daemon sent more than 1 MiB" in str(error)
    bomb = web.Response(body=gzip.compress(bytes(10 << 20)), headers={"Content-Encoding": "gzip"})
    assert "unknown response" in str(await answering(path, bomb))
    deep = web.Response(status=500, text="[" * 100_000, content_type="application/json")
    assert isinstance(await answering(path, deep), Unavailable)


async def test_a_redirect_of_a_daemon_is_not_followed(path: Path) -> None:
    redirect = web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"})
    assert "answered HTTP 302" in str(await answering(path, redirect))


async def test_an_event_without_a_bound_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"data: " + bytes(4 << 20))
        return response

    monkeypatch.setattr("p2pmodel.client.MAX_EVENT", 1 << 16)
    app = web.Application()
    app.router.add_get("/{tail:.*}", handler)
    async with serving_unix(app, path, grace=0.2), Client(path) as client:
        with pytest.raises(Conflict, match="an event that cannot be read"):
            await anext(client.watch())
