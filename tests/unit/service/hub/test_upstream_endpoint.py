"""The endpoint with an upstream behind it, from the view of clients."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientPayloadError, ClientSession

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.config.settings import Settings
from p2pmodel.http import file_response
from p2pmodel.http.server import serving
from p2pmodel.node.hub.admission import Admission
from p2pmodel.node.hub.pull_through import PullThrough
from p2pmodel.node.reporter import Reporter
from p2pmodel.service.hub.app import hub_endpoint
from p2pmodel.store.cache import HubCache
from tests.support.eventually import PATIENCE, eventually
from tests.support.fake_hub import FakeHub
from tests.support.hub_faults import parse_fault
from tests.support.hub_snapshot import snapshot_of

WEIGHTS = os.urandom(3 << 20)
SNAPSHOT = snapshot_of({"config.json": b"{}", "empty.txt": b"", "model.safetensors": WEIGHTS})
FILE = "org/model/resolve/main/model.safetensors"


class Edge:
    """A hub, and our endpoint in front of it."""

    def __init__(self, hub: FakeHub, through: PullThrough, http: ClientSession, base: str) -> None:
        self.hub, self.through, self.base = hub, through, base
        self._http = http

    async def ask(self, path: str = FILE, method: str = "GET", **headers: str) -> tuple[int, Any, bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self._http.request(method, f"{self.base}/{path}", headers=named) as answer:
            return answer.status, answer.headers, await answer.read()

    def restrict(self, *, allow: tuple[str, ...] = (), deny: tuple[str, ...] = ()) -> None:
        self.through._rules = Admission(allow, deny)

    def break_with(self, *faults: str) -> None:
        self.hub.faults[:] = [parse_fault(fault) for fault in faults]

    def asked_for_bytes(self) -> int:
        return sum("/resolve/" in request.path for request in self.hub.requests)


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(FakeHub(SNAPSHOT))
        cache = HubCache(tmp_path / "hub")
        settings = Settings(
            cache_dir=cache.root,
            mirrors=(MirrorSettings(name="up", endpoint=hub.url),),
            origin=OriginSettings(part_size=1 << 18, connect_timeout=1, read_timeout=1, patience=0.3),
        )
        through = await stack.enter_async_context(PullThrough(cache, settings, Reporter(), linger=0.5))
        base = await stack.enter_async_context(
            serving(hub_endpoint(cache, upstream=through), "127.0.0.1", 0, grace=0.1)
        )
        http = await stack.enter_async_context(ClientSession())
        yield Edge(hub, through, http, base)


async def test_metadata_and_head_need_no_bytes(edge: Edge) -> None:
    status, headers, _ = await edge.ask(method="HEAD")
    assert (status, headers["Content-Length"], headers["X-Repo-Commit"]) == (200, str(len(WEIGHTS)), SNAPSHOT.commit)
    assert headers["ETag"] == f'"{SNAPSHOT.file("model.safetensors").etag}"'
    for path in ("", "/revision/main", "/tree/main", f"/tree/{SNAPSHOT.commit}?recursive=true", "/refs"):
        assert (await edge.ask(f"api/models/org/model{path}"))[0] == 200
    assert edge.asked_for_bytes() == 0


async def test_many_at_once_get_everything_for_one_copy_from_upstream(edge: Edge) -> None:
    answers = await asyncio.gather(*(edge.ask() for _ in range(40)))
    assert {(status, body) for status, _, body in answers} == {(200, WEIGHTS)}
    assert edge.hub.sent == len(WEIGHTS)


async def test_ranges_of_a_cold_file(edge: Edge) -> None:
    edge.break_with(f"slow:{4 << 20}")
    wanted = {"bytes=5-9": WEIGHTS[5:10], "bytes=1000000-": WEIGHTS[1000000:], "bytes=-7": WEIGHTS[-7:]}
    answers = await asyncio.gather(*(edge.ask(Range=each) for each in wanted))
    for (status, headers, body), expected in zip(answers, wanted.values(), strict=True):
        assert (status, body) == (206, expected)
        assert headers["Content-Range"].endswith(f"/{len(WEIGHTS)}")
    assert edge.hub.sent == len(WEIGHTS)


async def test_the_second_request_needs_no_upstream(edge: Edge) -> None:
    await edge.ask()
    repo = edge.through.cache.repo(SNAPSHOT.manifest.repo)
    await eventually(lambda: repo.resolve("main") is not None, what="it is published")
    before = len(edge.hub.requests)
    assert (await edge.ask())[2] == WEIGHTS
    assert (await edge.ask(Range="bytes=1-3"))[2] == WEIGHTS[1:4]
    assert len(edge.hub.requests) == before


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("org/none/resolve/main/x", 404, "RepoNotFound"),
        ("org/model/resolve/v9/x", 404, "RevisionNotFound"),
        ("org/model/resolve/main/x", 404, "EntryNotFound"),
        ("a..b/resolve/main/x", 404, "RepoNotFound"),
        ("org/model/resolve/a%20b/x", 404, "RevisionNotFound"),
    ],
)
async def test_missing_files_and_revisions(edge: Edge, path: str, status: int, code: str) -> None:
    got, headers, _ = await edge.ask(path)
    assert (got, headers.get("X-Error-Code")) == (status, code)
    assert ("X-Repo-Commit" in headers) == (code == "EntryNotFound")


async def test_an_upstream_that_fails_has_its_own_answer(edge: Edge) -> None:
    edge.break_with("status:500")
    status, headers, _ = await edge.ask()
    assert (status, headers["Retry-After"]) == (503, "5")


async def test_a_slow_upstream_does_not_keep_the_headers(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_response, "FIRST_BYTE", 0.05)
    edge.break_with("stall")
    async with ClientSession() as http:
        answer = await asyncio.wait_for(http.get(f"{edge.base}/{FILE}"), PATIENCE)
        assert answer.status == 200
        answer.close()


async def test_wrong_bytes_end_the_connection_and_a_resumption_starts_from_zero(edge: Edge) -> None:
    edge.break_with("flip", f"slow:{4 << 20}")
    with pytest.raises(ClientPayloadError):
        await edge.ask()
    edge.break_with()
    async with asyncio.timeout(PATIENCE):
        # A request before the end of the failing download gets its outcome.
        while (answer := await edge.ask(Range="bytes=1000000-"))[0] == 500:
            assert "wrong bytes" in answer[1]["X-Error-Message"]
    status, headers, body = answer
    assert (status, headers["Accept-Ranges"], body) == (200, "none", WEIGHTS)


async def test_a_corrupt_file_is_served_whole_or_not_at_all_also_once_published(edge: Edge) -> None:
    await edge.ask()
    repo = edge.through.cache.repo(SNAPSHOT.manifest.repo)
    file = SNAPSHOT.file("model.safetensors")
    await eventually(lambda: repo.blob(file) is not None, what="it is published")
    assert (await edge.ask(Range="bytes=0-0"))[0] == 206
    repo.mark_corrupt(file)
    assert (await edge.ask(Range="bytes=0-0"))[0] == 200


async def test_a_client_that_leaves_lets_the_pull_end(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_response, "_CLIENT_CHECK_SECONDS", 0.05)
    edge.break_with("stall")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(edge.ask(), 0.3)
    await eventually(lambda: not edge.through._downloads, what="nothing is pulled any more")


async def test_a_repository_that_is_not_admitted_is_not_found_and_not_requested_upstream(edge: Edge) -> None:
    await edge.ask("org/model/resolve/main/config.json")
    before = len(edge.hub.requests)
    for rules in ({"deny": ("org/*",)}, {"allow": ("Qwen/*",)}):
        edge.restrict(**rules)
        for path in ("org/model/resolve/main/config.json", "api/models/org/model", "api/models/org/model/refs"):
            status, headers, _ = await edge.ask(path)
            assert (status, headers["X-Error-Code"]) == (404, "RepoNotFound")
    assert len(edge.hub.requests) == before
