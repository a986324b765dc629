"""Requests that a node's hub endpoint relays: datasets, the hub's other GETs, and models for a client's token."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientPayloadError, ClientSession
from yarl import URL

from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.core.content.names import RepoId
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.http.exposition import Traffic
from p2pmodel.node.hub import token_scope
from p2pmodel.service.roles.hub_endpoint import HubRole, serving_hub
from tests.support.fake_hub import FakeHub
from tests.support.hub_layout import write_snapshot
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_machine import Machine, machine

__all__ = ["machine"]

DATA = bytes(range(256)) * 9000
SNAPSHOT = snapshot_of({"README.md": b"# data", "data/train.bin": DATA, "xet.json": b'{"xetHash": 1}'})
FILE = "datasets/org/model/resolve/main/data/train.bin"
MODEL = "org/model/resolve/main/data/train.bin"
ANNS, BERTS, NODES = "hf_of_anna", "hf_of_bert", "hf_of_the_node"


class Endpoint:
    """A node's endpoint before fake hubs."""

    def __init__(self, machine: Machine, url: str, http: ClientSession, log: Path) -> None:
        self.url, self.log = url, log
        self._machine = machine
        self._http = http

    async def ask(
        self, path: str = FILE, method: str = "GET", *, token: str | None = None, data: Any = None, **headers: str
    ) -> tuple[int, Any, bytes]:
        if token:
            headers["Authorization"] = f"Bearer {token}"
        url = URL(f"{self.url}/{path}", encoded=True)
        async with self._http.request(method, url, headers=headers, data=data) as answer:
            return answer.status, answer.headers, await answer.read()

    def assert_nowhere(self, secret: str) -> None:
        """Neither on the disk, the logs among it, nor in what the node noted."""
        paths = [Path(folder, name) for folder, _, names in os.walk(self._machine.root) for name in names]
        contents = {path: self._read(path) for path in paths if path.is_file()}
        assert contents
        assert not [path for path, content in contents.items() if secret.encode() in content]
        assert not [note for note in self._machine.notes if secret in note]

    @staticmethod
    def _read(path: Path) -> bytes:
        with suppress(FileNotFoundError):  # the node continues meanwhile
            return path.read_bytes()
        return b""


@asynccontextmanager
async def endpoint(machine: Machine, *mirrors: MirrorSettings, token: str | None = None) -> AsyncIterator[Endpoint]:
    machine.use(mirrors=mirrors, offline=not mirrors)
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(machine.running())
        role = HubRole(ListenAddress("127.0.0.1", 0), token, machine.root / "access.jsonl")
        url = await stack.enter_async_context(serving_hub(node, role, machine.notes.append, 0.1, Traffic()))
        http = await stack.enter_async_context(ClientSession())
        assert url is not None
        assert role.access_log is not None
        yield Endpoint(machine, url, http, role.access_log)


def mirror(hub: FakeHub, name: str = "hub", *, own: str | None = None, takes: bool = False) -> MirrorSettings:
    values = {"name": name, "endpoint": hub.url, "token": own, "client_tokens": takes}
    return MirrorSettings.model_validate(values)


async def test_a_dataset_is_the_mirrors(machine: Machine) -> None:
    file = SNAPSHOT.file("data/train.bin")
    async with FakeHub(SNAPSHOT, kind="datasets", xet=True) as hub, endpoint(machine, mirror(hub)) as at:
        status, headers, body = await at.ask(method="HEAD")
        assert (status, body, headers["Content-Length"]) == (200, b"", str(file.size))
        assert headers["ETag"] == headers["X-Linked-Etag"] == f'"{file.etag}"'
        assert headers["X-Repo-Commit"] == SNAPSHOT.commit
        assert not {"X-Xet-Hash", "Link"} & set(headers)
        assert (await at.ask())[2] == DATA
        status, headers, body = await at.ask(Range="bytes=10-19")
        assert (status, body, headers["Content-Range"]) == (206, DATA[10:20], f"bytes 10-19/{len(DATA)}")
        assert (await at.ask(Range=f"bytes={len(DATA)}-"))[0] == 416
        for path in ("", "/revision/main", "/refs"):
            assert (await at.ask(f"api/datasets/org/model{path}"))[0] == 200
        entries = json.loads((await at.ask("api/datasets/org/model/tree/main?recursive=true"))[2])
        [large] = [entry for entry in entries if "lfs" in entry]
        assert large["path"] == "data/train.bin"
        assert "xetHash" not in large
        found = await at.ask("api/datasets/org/model/paths-info/main", "POST", data={"paths": ["README.md"]})
        assert [entry["path"] for entry in json.loads(found[2])] == ["README.md"]
        assert (await at.ask("datasets/org/model/resolve/main/xet.json"))[2] == SNAPSHOT.contents["xet.json"]
        assert [r["bytes"] for r in map(json.loads, at.log.read_text().splitlines())][:3] == [0, len(DATA), 10]


async def test_pages_are_followed_through_the_endpoint(machine: Machine) -> None:
    async with FakeHub(SNAPSHOT, kind="datasets", page=3, prefix="/hf") as hub, endpoint(machine, mirror(hub)) as at:
        found, path = [], "api/datasets/org/model/tree/main?recursive=true"
        while path:
            _, headers, body = await at.ask(path)
            found += json.loads(body)
            url = headers.get("Link", "").partition(">")[0].lstrip("<")
            assert not url or url.startswith(at.url)
            path = url.removeprefix(at.url + "/")
        assert [entry["path"] for entry in found] == ["README.md", "data", "data/train.bin", "xet.json"]


async def test_a_page_in_a_kernel_is_none_on_the_endpoints_origin(machine: Machine) -> None:
    pages = snapshot_of({"page.html": b"<script>fetch('/api/v1/transfers')</script>"})
    async with FakeHub(pages, kind="kernels", faults=["html"]) as hub, endpoint(machine, mirror(hub)) as at:
        status, headers, _ = await at.ask("kernels/org/model/resolve/main/page.html")
        assert (status, headers["Content-Type"]) == (200, "text/html"), "as the mirror sent it"
        assert headers["Content-Disposition"] == "attachment"
        assert headers["Content-Security-Policy"].startswith("sandbox;")
        assert headers["X-Content-Type-Options"] == "nosniff"


async def test_a_refused_request_is_in_the_access_log(machine: Machine) -> None:
    async with FakeHub(SNAPSHOT, kind="datasets") as hub, endpoint(machine, mirror(hub)) as at:
        assert (await at.ask(Origin="http://evil.example"))[0] == 403
        assert [line["status"] for line in map(json.loads, at.log.read_text().splitlines())] == [403]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("datasets/org/model/resolve/main/none", 404, "EntryNotFound"),
        ("datasets/org/model/resolve/v9/README.md", 404, "RevisionNotFound"),
        ("datasets/org/none/resolve/main/README.md", 404, "RepoNotFound"),
        ("api/spaces/org/none", 404, "RepoNotFound"),
        ("api/models/org/model/xet-read-token/main", 404, None),
        ("api/datasets/org/model/tree/%2e%2e/x", 404, "RevisionNotFound"),
        ("datasets/..%2f..%2fsecret/x", 400, None),
    ],
)
async def test_a_refusal_is_as_the_hubs(machine: Machine, path: str, status: int, code: str | None) -> None:
    async with FakeHub(SNAPSHOT, kind="datasets") as hub, endpoint(machine, mirror(hub)) as at:
        got, headers, _ = await at.ask(path)
        assert (got, headers.get("X-Error-Code")) == (status, code)
        assert headers["X-Error-Message"]


async def test_only_reads_are_relayed(machine: Machine) -> None:
    async with FakeHub(SNAPSHOT, kind="datasets") as hub, endpoint(machine, mirror(hub)) as at:
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            for path in ("api/datasets/org/model", "api/repos/create", "api/models/org/model/commit/main", FILE):
                assert (await at.ask(path, method, token=ANNS, data=b"{}"))[0] == 405, (method, path)
        assert not hub.requests


async def test_offline_there_is_one_clear_answer(machine: Machine) -> None:
    async with endpoint(machine) as at:
        for path in (FILE, "api/datasets/org/model", "api/whoami-v2", "api/models?search=x"):
            status, headers, _ = await at.ask(path)
            assert status == 501, "hub clients retry endlessly on 503"
            assert "no mirror may be asked; unset HF_HUB_OFFLINE" in headers["X-Error-Message"]


async def test_a_mirror_that_fails_midway_costs_the_client_no_bytes(machine: Machine) -> None:
    breaking, sound = FakeHub(SNAPSHOT, kind="datasets", faults=["drop:700000"]), FakeHub(SNAPSHOT, kind="datasets")
    async with breaking as a, sound as b, endpoint(machine, mirror(a, "a"), mirror(b, "b")) as at:
        assert (await at.ask())[2] == DATA


async def test_wrong_bytes_do_not_become_a_file(machine: Machine) -> None:
    async with FakeHub(SNAPSHOT, kind="datasets", faults=["flip"]) as hub, endpoint(machine, mirror(hub)) as at:
        with pytest.raises(ClientPayloadError):
            await at.ask()
        assert "wrong bytes" in machine.notes[-1]


async def test_requests_about_the_user_have_the_clients_token_alone(machine: Machine) -> None:
    async with FakeHub(SNAPSHOT, token=ANNS) as hub, endpoint(machine, mirror(hub, own=NODES, takes=True)) as at:
        status, _, body = await at.ask("api/whoami-v2", token=ANNS)
        assert (status, json.loads(body)["name"]) == (200, "somebody")
        assert (await at.ask("api/whoami-v2", token=BERTS))[0] == 401
        assert (await at.ask("api/whoami-v2"))[0] == 401
        assert (await at.ask("api/models?search=x"))[2] == b"[]"
        assert NODES not in {request.token for request in hub.requests}
        at.assert_nowhere(ANNS)


async def test_the_endpoints_own_token_is_no_clients(machine: Machine) -> None:
    async with FakeHub(SNAPSHOT, kind="datasets", token="sesame") as hub:
        async with endpoint(machine, mirror(hub, takes=True), token="sesame") as at:
            assert (await at.ask())[0] == 401
            assert (await at.ask(token="sesame"))[0] == 404
        assert {request.token for request in hub.requests} == {""}


@pytest.mark.parametrize("gated", [False, True], ids=["private", "gated"])
async def test_a_model_for_one_clients_token_is_for_this_client(machine: Machine, gated: bool) -> None:
    """Anna may, Bert and the node may not. Anna's client shares the cache, and so puts the model there."""
    async with FakeHub(SNAPSHOT, token=ANNS, gated=gated) as hub, FakeHub(SNAPSHOT, token=NODES) as other:
        mirrors = mirror(hub, "hub", takes=True), mirror(other, "other")
        async with endpoint(machine, *mirrors) as at:
            refused = (await at.ask(MODEL, token=BERTS))[0]
            assert refused in (401, 403, 404)
            assert (await at.ask(MODEL))[0] == refused
            assert (await at.ask(MODEL, token=ANNS))[2] == DATA
            assert (await at.ask(MODEL, "HEAD", token=ANNS))[1]["ETag"] == f'"{SNAPSHOT.file("data/train.bin").etag}"'
            assert not list(machine.settings.cache_dir.rglob("blobs/*")), "no blob of it is in the cache"
            write_snapshot(machine.settings.cache_dir, "org/model", dict(SNAPSHOT.contents), commit=SNAPSHOT.commit)
        async with endpoint(machine, *mirrors) as at:  # it remembers
            for token in (None, BERTS):
                for path in (MODEL, "org/model/resolve/main/README.md"):
                    assert (await at.ask(path, token=token))[0] in (401, 403, 404)
            assert (await at.ask(MODEL, token=ANNS))[2] == DATA
            assert not [view for view in machine.notes if "seeding" in view]
            at.assert_nowhere(ANNS)
            at.assert_nowhere(BERTS)
        assert {request.token for request in hub.requests} == {"", ANNS, BERTS}
        assert {request.token for request in other.requests} == {""}
        async with endpoint(machine) as at:  # offline, no mirror can check the token
            assert (await at.ask(MODEL, token=ANNS))[0] == 501


async def test_what_the_nodes_own_token_opens_is_for_its_user_and_for_clients_with_a_right(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_scope, "CHECK_EVERY", 0.0)
    async with FakeHub(SNAPSHOT, token=ANNS) as hub:
        async with endpoint(machine, mirror(hub, takes=True)) as at:
            assert (await at.ask(MODEL, token=ANNS))[0] == 200
            assert (await at.ask(MODEL))[0] != 200
        hub.requests.clear()
        async with endpoint(machine, mirror(hub, own=ANNS, takes=True)) as at:  # the node was given a right of its own
            assert (await at.ask(MODEL, token=ANNS))[2] == DATA
            assert (await at.ask(MODEL))[2] == DATA
            status, headers, body = await at.ask(MODEL, token=BERTS)
            assert (status, headers["X-Error-Code"]) == (403, "GatedRepo")
            assert BERTS.encode() not in body
    assert json.loads((machine.root / "state" / "withheld.json").read_text()) == []
    assert RepoId("org/model").value not in (machine.root / "state" / "withheld.json").read_text()


async def test_a_private_dataset_that_the_nodes_token_opens_is_for_clients_with_a_right(machine: Machine) -> None:
    hub = FakeHub(SNAPSHOT, kind="datasets", token=f"{NODES},{ANNS}")
    async with hub, endpoint(machine, mirror(hub, own=NODES, takes=True)) as at:
        raw = "datasets/org/model/raw/main/data/train.bin"
        for path in (FILE, "api/datasets/org/model", "api/datasets/org/model/commits/main", raw):
            status, _, body = await at.ask(path, token=BERTS)
            assert status in (401, 403, 404), path
            assert DATA[:100] not in body
        assert (await at.ask(token=ANNS))[2] == DATA
        assert (await at.ask())[2] == DATA, "the own user"
        at.assert_nowhere(BERTS)
