"""The control API over a real node: every operation, every refusal, and a document that matches the table."""

import asyncio
import base64
import io
import json
import random
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from p2pmodel.config.sections.trust import TrustRule, TrustSettings
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.catalog.publication import read_publication
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.core.content.bitfield import unpack
from p2pmodel.http import event_streams
from p2pmodel.http.admission.access import RequestGuard
from p2pmodel.http.server import serving
from p2pmodel.node.node import Node
from p2pmodel.service.control import api as control_api
from p2pmodel.service.control.api import NodeApi
from p2pmodel.service.control.app import MAX_BODY, control_app, table
from p2pmodel.service.control.app import _ControlHandlers as Handlers
from p2pmodel.service.control.bodies import MOST_PLACES
from p2pmodel.trust.signatures.signing_key import read_signing_key
from p2pmodel.trust.signatures.statement import SignedStatement, Statement
from tests.support.eventually import PATIENCE
from tests.support.node_machine import Machine, machine, torrent, until, until_state
from tests.support.node_swarm import CONTENTS
from tests.support.ssh_keys import SshKeys

__all__ = ["machine"]

OPERATIONS = {
    "GET /api/v1/catalog",
    "GET /api/v1/ready",
    "GET /api/v1/rollouts",
    "GET /api/v1/transfers/{id}/files",
    "GET /api/v1/transfers/{id}/pieces",
    "DELETE /api/v1/snapshots",
    "DELETE /api/v1/transfers/{id}",
    "GET /api/v1/events",
    "GET /api/v1/follow",
    "GET /api/v1/limits",
    "GET /api/v1/mirrors",
    "GET /api/v1/node",
    "GET /api/v1/openapi.json",
    "GET /api/v1/peers",
    "GET /api/v1/scrub",
    "GET /api/v1/transfers/{id}/peers",
    "PUT /api/v1/transfers/{id}/engine",
    "GET /api/v1/snapshots",
    "GET /api/v1/transfers",
    "GET /api/v1/transfers/{id}",
    "GET /api/v1/transfers/{id}/events",
    "GET /api/v1/transfers/{id}/why",
    "PATCH /api/v1/transfers/{id}",
    "POST /api/v1/transfers",
    "POST /api/v1/transfers/{id}/cancel",
    "POST /api/v1/transfers/{id}/first",
    "POST /api/v1/transfers/{id}/pause",
    "POST /api/v1/transfers/{id}/resume",
    "PUT /api/v1/limits",
}


class Api:
    """A client of the application of one node."""

    def __init__(self, node: Node, base: str, session: aiohttp.ClientSession) -> None:
        self.node = node
        self.base = base
        self.session = session

    async def __call__(self, method: str, path: str, body: object = None, **options: Any) -> tuple[int, Any]:
        async with self.session.request(method, f"{self.base}/api/v1/{path}", json=body, **options) as response:
            assert response.content_type == "application/json"
            return response.status, await response.json()

    async def ok(self, method: str, path: str, body: object = None, **options: Any) -> Any:
        status, answer = await self(method, path, body, **options)
        assert status == 200, answer
        return answer

    async def refuses(self, status: int, method: str, path: str, body: object = None, **options: Any) -> str:
        """The code and the message with which it refuses."""
        found, answer = await self(method, path, body, **options)
        assert found == status, answer
        assert answer.keys() == {"code", "message", "hint"}
        assert "Traceback" not in json.dumps(answer)
        return f"{answer['code']}: {answer['message']}"

    def events(self, path: str) -> Any:
        return self.session.get(f"{self.base}/api/v1/{path}")


@pytest.fixture
async def api(machine: Machine) -> AsyncIterator[Api]:
    async with (
        machine.running() as node,
        serving(control_app(NodeApi(node)), "127.0.0.1", 0, grace=0.2) as base,
        aiohttp.ClientSession() as session,
    ):
        yield Api(node, base, session)


def magic(machine: Machine) -> dict[str, str]:
    """A body that starts the transfer of the machine's snapshot."""
    return {"torrent": base64.b64encode(machine.swarm.metainfo.raw).decode()}


async def read_event(response: aiohttp.ClientResponse) -> tuple[str, Any]:
    kind = ""
    async for line in response.content:
        if line.startswith(b"event: "):
            kind = line[7:].strip().decode()
        if line.startswith(b"data: "):
            return kind, json.loads(line[6:])
    raise EOFError


async def test_a_transfer_from_start_to_removal(api: Api, machine: Machine) -> None:
    await machine.seeder()
    begun = await api.ok("POST", "transfers", magic(machine))
    one = f"transfers/{begun['id']}"
    await until_state(api.node, begun["id"], "seeding")
    done = await api.ok("GET", one)
    assert (done["repo"], done["state"], done["complete"]) == ("org/model", "seeding", True)
    assert await api.ok("GET", "transfers") == [done]
    assert (await api.ok("POST", f"{one}/pause"))["state"] == "paused"
    assert (await api.ok("POST", f"{one}/resume"))["state"] in ("ready", "seeding")
    assert (await api.ok("PATCH", one, {"priority": 5}))["priority"] == 5
    [snapshot] = await api.ok("GET", "snapshots")
    assert (snapshot["repo"], snapshot["files"], snapshot["missing"]) == ("org/model", len(CONTENTS), 0)
    assert (await api.ok("POST", f"{one}/cancel"))["id"] == begun["id"]
    assert await api.ok("GET", "transfers") == []
    assert machine.published() == CONTENTS
    await api.ok("POST", "transfers", magic(machine))
    removed = await api.ok("DELETE", one)
    assert removed["repo"] == "org/model"
    assert await api.ok("GET", "snapshots") == []


def pieces_of(field: str, count: int) -> frozenset[int]:
    return unpack(base64.b64decode(field), count)


async def test_the_state_of_each_piece(api: Api, machine: Machine) -> None:
    layout = machine.swarm.metainfo.layout
    ident = (await api.ok("POST", "transfers", magic(machine)))["id"]
    await until(api.node, ident, lambda view: view.progress.phase == "downloading")
    files = await api.ok("GET", f"transfers/{ident}/files")
    assert {file["path"]: (file["size"], file["done"]) for file in files} == {
        path: (len(data), 0) for path, data in CONTENTS.items()
    }
    before = await api.ok("GET", f"transfers/{ident}/pieces")
    assert before["count"] == layout.piece_count
    assert pieces_of(before["have"], layout.piece_count) == frozenset()
    await machine.seeder()
    done = await until_state(api.node, ident, "seeding")
    files = await api.ok("GET", f"transfers/{ident}/files")
    assert {(file["done"] == file["size"], file["verified"]) for file in files} == {(True, True)}
    after = await api.ok("GET", f"transfers/{ident}/pieces")
    assert pieces_of(after["have"], layout.piece_count) == frozenset(range(layout.piece_count))
    assert pieces_of(after["from_cache"], layout.piece_count) == frozenset()
    assert pieces_of(after["from_mirrors"], layout.piece_count) == frozenset()
    assert len(base64.b64decode(after["availability"])) == layout.piece_count
    assert (done.rate, done.eta) == (0, None)
    await api.ok("POST", f"transfers/{ident}/pause")
    await until(api.node, ident, lambda view: not view.progress.peers)
    async with asyncio.timeout(PATIENCE):
        while (await api.ok("GET", f"transfers/{ident}/pieces"))["count"]:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert "not_found" in await api.refuses(404, "GET", "transfers/0123456789ab/pieces")


async def test_the_swarms_of_coordinators(machine: Machine) -> None:
    async with (
        serving(coordinator_app(Tracker(), catalog := Catalog()), "127.0.0.1", 0, grace=0.2) as coordinator,
        aiohttp.ClientSession() as session,
    ):
        await catalog.publish(read_publication(machine.swarm.metainfo.raw), ["main"])
        machine.use(coordinators=(coordinator, "http://127.0.0.1:9"))
        async with (
            machine.running() as node,
            serving(control_app(NodeApi(node)), "127.0.0.1", 0, grace=0.2) as base,
        ):
            [swarm] = await Api(node, base, session).ok("GET", "catalog")
    assert (swarm["repo"], swarm["revisions"], swarm["seeders"]) == ("org/model", ["main"], 0)
    assert swarm["size"] == machine.swarm.metainfo.manifest.total_size


async def test_why_it_is_not_faster(api: Api, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_api, "DIAGNOSIS_SECONDS", 0.01)
    ident = (await api.ok("POST", "transfers", magic(machine)))["id"]
    await until(api.node, ident, lambda view: view.progress.phase == "downloading")
    assert (await api.ok("GET", f"transfers/{ident}/why"))["bound"] in ("no peers", "disk")
    await api.ok("POST", f"transfers/{ident}/pause")
    assert (await api.ok("GET", f"transfers/{ident}/why"))["bound"] == "paused"


async def test_places_that_a_load_waits_for_come_first(api: Api, machine: Machine) -> None:
    ident = (await api.ok("POST", "transfers", magic(machine)))["id"]
    await until(api.node, ident, lambda view: view.progress.phase == "downloading")
    manifest = machine.swarm.metainfo.manifest
    largest = max(manifest.files, key=lambda file: file.size)
    place = {"path": largest.path, "start": largest.size - 1, "end": largest.size}
    first = f"transfers/{ident}/first"
    assert await api.ok("POST", first, {"places": [place]}) == {"in_swarm": True, "pieces": 1}
    [torrent] = machine.engine.torrents.values()
    span = machine.swarm.metainfo.layout.spans[manifest.files.index(largest)]
    assert torrent._prioritized == {span.pieces[-1]}
    assert "has no bytes" in await api.refuses(400, "POST", first, {"places": [place | {"path": "../x"}]})
    assert "has no bytes" in await api.refuses(400, "POST", first, {"places": [place | {"end": largest.size + 1}]})
    assert "places" in await api.refuses(400, "POST", first, {"places": [place] * (MOST_PLACES + 1)})
    await api.refuses(404, "POST", "transfers/none/first", {"places": [place]})
    await machine.seeder()
    await until_state(api.node, ident, "seeding")
    assert await api.ok("POST", first, {"places": [place]}) == {"in_swarm": False, "pieces": 0}


async def test_a_snapshot_is_removed_by_its_name(api: Api, machine: Machine) -> None:
    await machine.seeder()
    ident = (await api.ok("POST", "transfers", magic(machine)))["id"]
    await until_state(api.node, ident, "seeding")
    commit = machine.swarm.snapshot.commit
    assert "not_found" in await api.refuses(404, "DELETE", "snapshots", params={"ref": "org/model@v9"})
    removed = await api.ok("DELETE", "snapshots", params={"ref": f"org/model@{commit}"})
    assert removed["freed"] > 0
    assert await api.ok("GET", "transfers") == []
    assert "the query has no 'ref'" in await api.refuses(400, "DELETE", "snapshots")


async def test_the_node_its_peers_its_mirrors_and_its_limits(api: Api, machine: Machine) -> None:
    node = await api.ok("GET", "node")
    assert node["cache_dir"] == str(machine.settings.cache_dir)
    assert await api.ok("GET", "mirrors") == []
    await machine.seeder()
    ident = (await api.ok("POST", "transfers", magic(machine)))["id"]
    await until_state(api.node, ident, "seeding")
    [swarm] = await api.ok("GET", "peers")
    size = machine.swarm.metainfo.manifest.total_size
    assert (swarm["transfer"], swarm["downloaded"]) == (ident, size)
    [peer] = swarm["connections"]
    assert (peer["kind"], peer["downloaded"], peer["progress"]) == ("peer", size, 1.0)
    assert await api.ok("GET", f"transfers/{ident}/peers") == [peer]
    assert "not_found" in await api.refuses(404, "GET", "transfers/none/peers")
    schedules = {"upload_schedule": [], "download_schedule": []}
    none = {"upload": 0, "download": 0, "upload_now": 0, "download_now": 0}
    assert await api.ok("GET", "limits") == none | schedules
    changed = await api.ok("PUT", "limits", {"upload": 5, "download": 6})
    assert changed == {"upload": 5, "download": 6, "upload_now": 5, "download_now": 6} | schedules
    assert machine.engine.limits == (5, 3), "and as much over HTTP"


async def test_an_engine_reports_that_it_serves_the_model(api: Api, machine: Machine) -> None:
    ident = (await api.ok("POST", "transfers", magic(machine)))["id"]
    said = await api.refuses(409, "PUT", f"transfers/{ident}/engine", {"ready": True})
    assert "is not complete here" in said
    await machine.seeder()
    await until_state(api.node, ident, "seeding")
    assert (await api.ok("PUT", f"transfers/{ident}/engine", {"ready": True}))["engine_ready"]
    assert not (await api.ok("PUT", f"transfers/{ident}/engine", {"ready": False}))["engine_ready"]
    await api.refuses(404, "PUT", "transfers/none/engine", {"ready": True})
    for seconds in (0, -1, 1e12, "inf"):
        await api.refuses(400, "PUT", f"transfers/{ident}/engine", {"ready": True, "seconds": seconds})


async def test_events_contain_every_change_until_removal(api: Api, machine: Machine) -> None:
    await machine.seeder()
    ident = (await api.ok("POST", "transfers", magic(machine)))["id"]
    async with api.events(f"transfers/{ident}/events") as one, api.events("events") as all_of_them:
        assert one.content_type == "text/event-stream"
        seen = []
        for stream in (one, all_of_them):
            while True:
                kind, state = await read_event(stream)
                seen.append(kind)
                if state["state"] == "seeding":
                    break
        await api.ok("POST", f"transfers/{ident}/cancel")
        async with asyncio.timeout(PATIENCE):
            for stream in (one, all_of_them):
                while (event := await read_event(stream))[0] != "gone":
                    pass
                assert event == ("gone", ident)
            with pytest.raises(EOFError):
                await read_event(one)
    assert set(seen) == {"state"}


async def test_a_stream_ends_with_the_application(machine: Machine) -> None:
    async with machine.running() as node, aiohttp.ClientSession() as session:
        async with serving(control_app(NodeApi(node)), "127.0.0.1", 0, grace=2 * PATIENCE) as base:
            response = await session.get(f"{base}/api/v1/events")
        with pytest.raises((EOFError, aiohttp.ClientError)):
            await read_event(response)


async def test_the_number_of_streams_is_limited(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_streams, "MOST", 1)
    async with api.events("events"):
        assert "event streams already" in await api.refuses(503, "GET", "events")


async def test_a_disconnected_client_leaves_no_stream(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_streams, "HEARTBEAT", 0.02)
    monkeypatch.setattr(event_streams, "MOST", 1)
    for _ in range(3):
        async with asyncio.timeout(PATIENCE):
            while (response := await api.events("events")).status == 503:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        response.close()


BAD = [
    ({}, "either a target or a torrent"),
    ({"target": "a/b", "torrent": ""}, "either a target or a torrent"),
    ({"target": "a b"}, "is not a repository id"),
    ({"target": "a/b", "surprise": 1}, "surprise"),
    ({"target": 5}, "target"),
    ({"target": "a/b", "priority": 1000}, "priority"),
    ({"target": "a/b", "peers": ["nowhere"]}, "is not an address"),
    ({"target": "/etc/passwd.torrent"}, "not as a path"),
    ({"torrent": "AAAA"}, ""),
    ({"torrent": "AAAA", "revision": "main"}, "a revision needs a repository"),
    ([], ""),
    ("a/b", ""),
    (None, ""),
]


@pytest.mark.parametrize(("body", "message"), BAD)
async def test_an_invalid_body_is_refused(api: Api, body: object, message: str) -> None:
    said = await api.refuses(400 if body is not None else 415, "POST", "transfers", body)
    assert message in said
    assert await api.ok("GET", "transfers") == []


@pytest.mark.parametrize("body", [{"upload": -1, "download": 0}, {"upload": 1}, {"upload": "x", "download": 1}])
async def test_invalid_limits_are_refused(api: Api, body: object) -> None:
    assert "invalid_input" in await api.refuses(400, "PUT", "limits", body)
    assert (await api.ok("GET", "limits"))["upload"] == 0


async def test_a_body_that_is_not_json_is_refused(api: Api) -> None:
    headers = {"Content-Type": "text/plain"}
    async with api.session.post(f"{api.base}/api/v1/transfers", data=b"{}", headers=headers) as response:
        assert response.status == 415
    headers = {"Content-Type": "application/json"}
    for data in (b"{", b"[" * 100_000, b"\xff"):
        async with api.session.post(f"{api.base}/api/v1/transfers", data=data, headers=headers) as response:
            assert response.status == 400
    too_large = io.BytesIO(b" " * (MAX_BODY + 1))
    async with api.session.post(f"{api.base}/api/v1/transfers", data=too_large, headers=headers) as response:
        assert response.status == 413


NASTY = [
    None,
    True,
    -1,
    1 << 70,
    1e308,
    "",
    "a/b",
    "x" * 9000,
    "\\x00",
    "ö",
    "../..",
    [],
    [[]],
    ["x"],
    {},
    {"a": {}},
    "AAAA",
]


async def test_no_request_makes_it_fail(api: Api) -> None:
    """Requests that match the document partly: refused, or unavailable if no source has the snapshot."""
    document, dice = await api.ok("GET", "openapi.json"), random.Random(7)
    schemas = document["components"]["schemas"]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content is None:
                continue
            names = [*schemas[content["schema"]["$ref"].rpartition("/")[2]]["properties"], "surprise"]
            for _ in range(60):
                body = {name: dice.choice(NASTY) for name in dice.sample(names, dice.randint(0, len(names)))}
                where = path.removeprefix("/api/v1/").replace("{id}", dice.choice(["0123456789ab", "%00", "x"]))
                status, answer = await api(method.upper(), where, body)
                assert status < 500 or (status == 503 and answer["code"] == "unavailable"), (path, body, answer)
                assert status == 200 or answer.keys() == {"code", "message", "hint"}


@pytest.mark.parametrize("path", ["transfers/0123456789ab", "transfers/..%2f..%2fx", "transfers/%00"])
async def test_an_unknown_transfer_is_not_found(api: Api, path: str) -> None:
    for method, tail in (("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/cancel"), ("GET", "/events")):
        assert "not_found" in await api.refuses(404, method, path + tail)


async def test_an_unknown_route_is_refused_in_the_same_shape(api: Api) -> None:
    assert "not_found" in await api.refuses(404, "GET", "nothing")
    assert "method_not_allowed" in await api.refuses(405, "PUT", "transfers", {})


async def test_a_bug_is_no_traceback(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise KeyError("secret")

    monkeypatch.setattr(api.node, "transfers", broken)
    assert "internal error" in await api.refuses(500, "GET", "transfers")


async def test_the_document_matches_the_table(api: Api) -> None:
    document = await api.ok("GET", "openapi.json")
    documented = {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}
    assert documented == OPERATIONS
    assert documented == {f"{route.method} {route.path}" for route in table(Handlers(NodeApi(api.node)))}
    text = json.dumps(document)
    for name in re.findall(r"#/components/schemas/([\w.-]+)", text):
        assert name in document["components"]["schemas"], name
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert all(operation["responses"]["200"]["content"] for operation in operations)


async def test_responses_match_the_document(api: Api, machine: Machine) -> None:
    document = await api.ok("GET", "openapi.json")
    await machine.seeder()
    view = await api.ok("POST", "transfers", magic(machine))
    schemas = document["components"]["schemas"]
    assert view.keys() == schemas["TransferView"]["properties"].keys()
    assert view["progress"].keys() == schemas["Progress"]["properties"].keys()
    body = document["paths"]["/api/v1/transfers"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["$ref"].endswith("/StartBody")


async def test_a_read_only_application_has_no_mutating_routes(machine: Machine) -> None:
    async with (
        machine.running() as node,
        serving(control_app(NodeApi(node), read_only=True), "127.0.0.1", 0, grace=0.2) as base,
        aiohttp.ClientSession() as session,
    ):
        api = Api(node, base, session)
        assert await api.ok("GET", "transfers") == []
        await api.refuses(405, "POST", "transfers", {})
        await api.refuses(405, "PUT", "limits", {})
        documented = (await api.ok("GET", "openapi.json"))["paths"]
        assert {method for item in documented.values() for method in item} == {"get"}


Knock = Callable[..., Any]


@pytest.fixture
async def knock(machine: Machine, request: pytest.FixtureRequest) -> AsyncIterator[Knock]:
    """Requests the limits over TCP, from a node with the access of the test's parameter."""
    async with machine.running() as node, aiohttp.ClientSession() as session:
        app: web.Application = control_app(NodeApi(node), request.param)
        guard = RequestGuard(secured=request.param is not None)
        async with serving(app, "127.0.0.1", 0, guard=guard, grace=0.2) as base:

            async def ask(**headers: str) -> int:
                names = {
                    name.replace("_", "-"): value.replace("HERE", base.removeprefix("http://"))
                    for name, value in headers.items()
                }
                async with session.get(f"{base}/api/v1/limits", headers=names) as response:
                    return response.status

            yield ask


@pytest.mark.parametrize("knock", [None], indirect=True)
async def test_without_a_token_web_pages_are_refused(knock: Knock) -> None:
    assert await knock() == 200
    assert await knock(Host="localhost:1234") == 200
    assert await knock(Host="[::1]:80") == 200
    assert await knock(Origin="http://HERE") == 200
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil", "[::1", "a:b:c"):
        assert await knock(Host=host) == 403, host
    assert await knock(Sec_Fetch_Site="same-origin") == await knock(Sec_Fetch_Site="none") == 200
    assert await knock(Sec_Fetch_Site="cross-site") == 403
    for origin in ("http://evil.example", "null", "http://HERE.evil", "http://[", "", "ftp://HERE"):
        assert await knock(Origin=origin) == 403, origin


@pytest.mark.parametrize("knock", ["sesame-sesame"], indirect=True)
async def test_with_a_token_only_clients_with_it_are_admitted(knock: Knock) -> None:
    assert await knock() == 401
    for wrong in (
        "sesame-sesame",
        "Bearer ",
        "Bearer sesame",
        "Basic sesame-sesame",
        "Bearer sesame-sesame2",
        "Bearer ö",
    ):
        assert await knock(Authorization=wrong) == 401, wrong
    assert await knock(Authorization="Bearer sesame-sesame") == 200
    assert await knock(Authorization="bearer sesame-sesame", Host="node7.cluster") == 403
    assert await knock(Authorization="Bearer sesame-sesame", Origin="http://evil.example") == 403


async def test_a_second_fetch_over_the_api_is_the_same_transfer(api: Api, machine: Machine) -> None:
    first, second = await asyncio.gather(*(api.ok("POST", "transfers", magic(machine)) for _ in range(2)))
    assert first["id"] == second["id"]
    assert (await api.node.start(torrent(machine.swarm))).id == first["id"]


@pytest.mark.needs("ssh-keygen")
async def test_signed_statements_come_with_a_torrent(api: Api, machine: Machine, tmp_path: Path) -> None:
    """The rules of the node hold for what a client sends: without the statement the torrent is refused."""
    keys = SshKeys(tmp_path / "keys")
    key, metainfo = keys.new("key"), machine.swarm.metainfo
    rule = TrustRule(repos=("*",), signature="enforce")
    trust = TrustSettings(allowed_signers=keys.allow(f"alice {keys.public(key)}"), rules=(rule,))
    api.node.settings = api.node.settings.model_copy(update={"trust": trust})
    assert "untrusted" in await api.refuses(403, "POST", "transfers", magic(machine))
    signed = SignedStatement.by(read_signing_key(key), Statement.over(metainfo.manifest, metainfo.info_hash, 0.0))
    begun = await api.ok("POST", "transfers", magic(machine) | {"signatures": [signed.plain]})
    assert begun["vouched_by"] == "signature alice"
