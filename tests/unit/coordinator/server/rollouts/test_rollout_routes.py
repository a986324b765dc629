"""Roll-outs over HTTP: rights, bounds, and the client's view of them."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

from p2pmodel.coordinator.client import rollouts as client_module
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.rollouts import RolloutClient, SnapshotReport, first_with
from p2pmodel.coordinator.leases.demand import Demand
from p2pmodel.coordinator.leases.messages import demand_text
from p2pmodel.coordinator.rollout.nodes import NodeBytes, NodeFailure, NodeReport, PreflightCheck
from p2pmodel.coordinator.rollout.rollout import MinReady, RolloutSpec, RolloutView
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.catalog.publication import read_publication
from p2pmodel.coordinator.server.rollouts.registry import Rollouts
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import AccessDenied, Conflict, Forbidden, InvalidInput, NotFound, P2PModelError, Unavailable
from p2pmodel.http.server import serving
from tests.support.coordinators import CLOSED, HOST, PUBLISH_TOKEN, TOKEN, tokens
from tests.support.eventually import PATIENCE
from tests.support.torrent_files import SMALL, torrent_of

REPO, COMMIT = RepoId("org/model"), "c" * 40
SPEC = RolloutSpec(REPO, COMMIT, ("a", "b"), ("files", "loaded"), 60.0, MinReady(1))
NUMBERS = NodeReport("downloading", total=100, bytes=NodeBytes(origin=10, peers=40), rate=5, why="link: it is full")


class Rig:
    """A coordinator, and clients with and without the token of a publisher."""

    def __init__(self, url: str, http: ClientSession, rollouts: Rollouts) -> None:
        self.url = url
        self.http = http
        self.rollouts = rollouts
        self.client = RolloutClient(Coordinator(url, TOKEN, PUBLISH_TOKEN))
        self.member = RolloutClient(Coordinator(url, TOKEN))

    async def status(self, method: str, path: str, data: str | None = None, token: str = TOKEN) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers["Content-Type"] = "application/json"
        body = None if data is None else io.BytesIO(data.encode())
        async with self.http.request(method, self.url + path, data=body, headers=headers) as response:
            return response.status, await response.json()


@asynccontextmanager
async def rig(port: int = 0, rollouts: Rollouts | None = None, catalog: Catalog | None = None) -> AsyncIterator[Rig]:
    rollouts = rollouts or Rollouts()
    app = coordinator_app(Tracker(), catalog or Catalog(), credentials=tokens(TOKEN), rollouts=rollouts)
    async with serving(app, HOST, port, grace=0.1) as url, ClientSession() as http:
        yield Rig(url, http, rollouts)


async def seen(view: AsyncIterator[RolloutView], states: list[str]) -> None:
    states.extend([f"{each.state}: {', '.join(node.phase for node in each.nodes)}" async for each in view])


async def test_a_rollout_from_its_begin_to_its_end() -> None:
    async with rig() as on:
        made = await on.client.create(SPEC)
        assert (made.spec, made.state, made.owner) == (SPEC, "open", "seeder")
        states: list[str] = []
        watching = asyncio.create_task(seen(on.member.watch(made.id), states))
        checks = (PreflightCheck("disk", ok=True, detail="90 GB free"),)
        await on.member.report(made.id, {"a": NodeReport("preflight", preflight=checks)})
        opened = await on.member.report_own("a", [SnapshotReport(str(REPO), COMMIT, NUMBERS)])
        assert opened == {(str(REPO), COMMIT)}
        assert await on.member.report_own("a", [SnapshotReport("org/other", COMMIT, NUMBERS)]) == frozenset()
        node = (await on.member.read(made.id)).nodes[0]
        assert (node.phase, node.preflight, node.share, node.why) == ("downloading", checks, 0.5, "link: it is full")
        for name in "ab":
            await on.member.report_own(name, [SnapshotReport(str(REPO), COMMIT, NodeReport("loaded"))])
        async with asyncio.timeout(PATIENCE):
            await watching
        assert states[-1] == "complete: loaded, loaded"
        assert (await on.client.all())[0].state == "complete"
        with pytest.raises(Conflict):
            await on.client.report(made.id, {"a": NodeReport("failed")})


async def test_the_whole_state_has_the_report() -> None:
    async with rig() as on:
        made = await on.client.create(SPEC)
        await on.member.report_own("a", [SnapshotReport(str(REPO), COMMIT, NUMBERS)])
        _, plain = await on.status("GET", f"/rollouts/{made.id}")
        assert plain["report"]["origin_copies"] == 0.1
        assert [gate["gate"] for gate in plain["report"]["gates"]] == ["files", "loaded"]
        _, listed = await on.status("GET", "/rollouts")
        assert [(each["id"], each["report"]["counts"]["downloading"]) for each in listed["rollouts"]] == [(made.id, 1)]


async def test_members_read_and_report_and_only_publishers_begin_and_end() -> None:
    async with rig() as on:
        made = await on.client.create(SPEC)
        with pytest.raises(Forbidden):
            await on.member.create(SPEC)
        with pytest.raises(Forbidden):
            await on.member.end(made.id)
        for path in ("/rollouts", f"/rollouts/{made.id}", f"/rollouts/{made.id}/events", "/metrics"):
            assert (await on.status("GET", path, token=""))[0] == 401
        for path in ("/rollouts/reports", f"/rollouts/{made.id}/nodes"):
            assert (await on.status("POST", path, "{}", token=""))[0] == 401
        with pytest.raises(AccessDenied):
            await RolloutClient(Coordinator(on.url, "wrong-token-of-a-member")).read(made.id)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/rollouts/reports", "[]"),
        ("/rollouts/reports", '{"node": "a b", "reports": []}'),
        ("/rollouts/reports", '{"node": "a", "reports": {}}'),
        ("/rollouts/reports", json.dumps({"node": "a", "reports": [{}] * 65})),
        ("/rollouts/reports", json.dumps({"node": "a", "reports": [{"repo": "org/model", "commit": "main"}]})),
        ("/rollouts/reports", " " * (65 << 10)),
        ("/rollouts/ID/nodes", '{"reports": {"a": {"phase": "asleep"}}}'),
        ("/rollouts/ID/nodes", '{"reports": {"a b": {"phase": "starting"}}}'),
        ("/rollouts/ID/nodes", "x" * ((1 << 20) + 1)),
    ],
)
async def test_a_malformed_request_is_refused_with_one_line(path: str, body: str) -> None:
    async with rig() as on:
        made = await on.client.create(SPEC)
        status, plain = await on.status("POST", path.replace("ID", made.id), body)
        assert (status, plain["code"]) == (400, "invalid_input")
        assert (await on.status("POST", "/rollouts", body, token=PUBLISH_TOKEN))[0] == 400


async def test_an_unknown_rollout_is_not_found() -> None:
    async with rig() as on:
        for call in (on.client.read("abcd1234"), on.client.end("abcd1234"), anext(on.client.watch("abcd1234"))):
            with pytest.raises(NotFound):
                await call
        with pytest.raises(InvalidInput):
            await on.client.read("../catalog")


async def test_a_watch_survives_a_restart_of_the_coordinator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "RETRY", 0.05)
    rollouts, lost = Rollouts(), []
    async with rig(rollouts=rollouts) as on:
        made = await on.client.create(SPEC)
        views = on.member.watch(made.id, on_lost=lost.append)
        assert (await anext(views)).open
        port = int(on.url.rpartition(":")[2])
    async with rig(port, rollouts) as on:
        await on.client.end(made.id)
        async with asyncio.timeout(PATIENCE):
            assert [view.state async for view in views][-1] == "ended"
    assert isinstance(lost[0], Unavailable)


async def test_a_watch_of_a_coordinator_that_is_gone_ends() -> None:
    with pytest.raises(Unavailable):
        await anext(RolloutClient(Coordinator(CLOSED)).watch("abcd1234", lost_for=0.0))


async def test_the_first_coordinator_with_the_rollout_is_found() -> None:
    async with rig() as one, rig() as two:
        made = await two.client.create(SPEC)
        coordinators = [Coordinator(CLOSED), Coordinator(one.url, TOKEN), Coordinator(two.url, TOKEN)]
        assert (await first_with(coordinators, made.id))[1].id == made.id
        with pytest.raises(P2PModelError):
            await first_with(coordinators[:2], made.id)


async def test_a_report_with_a_demand_for_leases_reaches_the_rollout() -> None:
    catalog, publication = Catalog(), read_publication(torrent_of(SMALL, piece_length=16 << 10))
    await catalog.publish(publication)
    async with rig(catalog=catalog) as on:
        spec = RolloutSpec(publication.repo, publication.commit, ("a",))
        made = await on.client.create(spec)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        url = f"{on.url}/leases/{publication.info_hash}?node=a"
        async with on.http.ws_connect(url, headers=headers) as socket:
            demand = Demand(1, from_seeders=True)
            await socket.send_str(demand_text(demand, publication.piece_count, NUMBERS))
            async for view in on.member.watch(made.id):
                if view.nodes[0].bytes == NUMBERS.bytes:
                    break
            await socket.send_str(json.dumps(json.loads(demand_text(demand, 1)) | {"report": {"phase": "asleep"}}))
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    while not (await socket.receive()).type.name.startswith("CLOS"):
                        pass
            assert socket.closed


async def test_metrics_have_phases_gates_and_rates() -> None:
    async with rig() as on:
        made = await on.client.create(SPEC)
        await on.member.report_own("a", [SnapshotReport(str(REPO), COMMIT, NUMBERS)])
        failure = NodeFailure("no_space", "the disk is full")
        await on.member.report(made.id, {"b": NodeReport("failed", failure=failure)})
        await on.member.report_own("x", [SnapshotReport(str(REPO), COMMIT, NodeReport("files_ready"))])
        await on.member.report_own("a", [SnapshotReport(str(REPO), COMMIT, NodeReport("files_ready"))])
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with on.http.get(f"{on.url}/metrics", headers=headers) as response:
            families = {f.name: f for f in text_string_to_metric_families(await response.text())}
    samples = {s.labels["phase"]: s.value for s in families["p2pmodel_rollout_nodes"].samples}
    assert (samples["files_ready"], samples["failed"], samples["expected"]) == (1, 1, 0)
    assert families["p2pmodel_rollout_unlisted_nodes"].samples[0].value == 1
    assert families["p2pmodel_rollout_origin_bytes"].samples[0].value == 10
    ready = {s.labels["gate"]: s.value for s in families["p2pmodel_rollout_ready_ratio"].samples}
    assert ready == {"files": 0.5, "loaded": 0}
    assert {s.labels["nodes"] for s in families["p2pmodel_rollout_gate_seconds"].samples} == {"first", "p50"}
    assert not families["p2pmodel_rollout_bound_seconds"].samples  # no rate of a link is known


async def test_a_launcher_reports_many_nodes_with_few_requests_and_writes() -> None:
    names = tuple(f"gpu{number:04d}" for number in range(1000))
    async with rig() as on:
        made = await on.client.create(RolloutSpec(REPO, COMMIT, names))
        versions = on.rollouts.version.value
        sent: list[str] = []
        call = on.member._call

        async def counted(method: str, path: str, body: Any = None) -> dict[str, Any]:
            sent.append(path)
            return await call(method, path, body)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(on.member, "_call", counted)
            await on.member.report(made.id, {name: NodeReport("starting") for name in names})
        assert sent == [f"/rollouts/{made.id}/nodes"] * 16
        assert on.rollouts.version.value > versions
        assert {node.phase for node in (await on.member.read(made.id)).nodes} == {"starting"}


async def test_of_reports_on_behalf_all_are_taken_or_none() -> None:
    async with rig() as on:
        made = await on.client.create(SPEC)
        path, good = f"/rollouts/{made.id}/nodes", {"phase": "starting"}
        for reports in ({}, [], {"a": good, "b": {"phase": "asleep"}}, {"a": good, "b/c": good}, {"x": good} | many()):
            assert (await on.status("POST", path, json.dumps({"reports": reports})))[0] == 400, reports
        assert {node.phase for node in (await on.member.read(made.id)).nodes} == {"expected"}
        # The last node that counts ends the roll-out; what follows in the same message has nothing left to say.
        both = {name: NodeReport("loaded") for name in "ab"}
        await on.member.report(made.id, both | {"x": NodeReport("starting")})
        assert (await on.member.read(made.id)).state == "complete"


def many() -> dict[str, Any]:
    return {f"n{number}": {"phase": "starting"} for number in range(64)}
