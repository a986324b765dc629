"""What a node sends to its coordinators, and that a coordinator that was away has it in the end."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.rollout.nodes import NodePhase, RolloutNode
from p2pmodel.coordinator.rollout.rollout import RolloutSpec
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.credentials import Caller, Credentials, Rights
from p2pmodel.coordinator.server.rollouts.registry import Rollouts
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.core.content.names import RepoId
from p2pmodel.core.progress.progress import Progress
from p2pmodel.core.tasks import companions
from p2pmodel.errors import NoSpace
from p2pmodel.http.server import serving
from p2pmodel.http_pool import HttpPool
from p2pmodel.node.rollout import reports as module
from p2pmodel.node.rollout.own_state import RolloutStanding
from p2pmodel.node.rollout.participants import FetchRollout
from p2pmodel.node.rollout.reports import RolloutReports
from tests.support.coordinators import CLOSED, HOST, PUBLISHERS, TOKEN, tokens
from tests.support.eventually import PATIENCE, eventually

REPO, COMMIT = RepoId("org/model"), "c" * 40
TEAM = Caller(Rights.PUBLISHER, "team")
PROGRESS = Progress("downloading", total=100, done=50, from_mirrors=50, download_rate=7)


def standing(phase: NodePhase) -> RolloutStanding:
    return RolloutStanding(phase, PROGRESS)


class Cluster:
    """A coordinator that may be stopped and started at the same address."""

    def __init__(self, credentials: Credentials = PUBLISHERS) -> None:
        self.rollouts = Rollouts()
        self.credentials = credentials
        self.port = 0

    @asynccontextmanager
    async def up(self) -> AsyncIterator[str]:
        app = coordinator_app(Tracker(), Catalog(), credentials=self.credentials, rollouts=self.rollouts)
        async with serving(app, HOST, self.port, grace=0.1) as url:
            self.port = int(url.rpartition(":")[2])
            yield url

    async def begin(self, *nodes: str) -> str:
        spec = RolloutSpec(REPO, COMMIT, nodes, gates=("files", "loaded", "answered"))
        return (await self.rollouts.create(spec, TEAM))[0].id

    def node(self, ident: str, index: int = 0) -> RolloutNode:
        return self.rollouts.view(ident).nodes[index]

    async def until(self, met: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not met():
                await self.rollouts.version.beyond(self.rollouts.version.value, timeout=1)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NUMBERS_EVERY", "LOOK_EVERY", "SETTLED_EVERY", "FIRST_RETRY", "LAST_RETRY"):
        monkeypatch.setattr(module, name, 0.1)


def reports_to(
    *urls: str, token: str = "", name: str = "a", clock: Callable[[], float] = time.monotonic
) -> RolloutReports:
    return RolloutReports(lambda: [Coordinator(url, token) for url in urls], name, clock=clock)


@asynccontextmanager
async def running(reports: RolloutReports) -> AsyncIterator[RolloutReports]:
    async with companions() as start:
        start(reports.run())
        yield reports


@pytest.mark.usefixtures("quick")
async def test_a_change_reaches_every_coordinator_and_one_that_is_gone_delays_none() -> None:
    one, two = Cluster(), Cluster()
    async with one.up() as first, two.up() as second, running(reports_to(CLOSED, first, second)) as reports:
        ids = [await cluster.begin("a") for cluster in (one, two)]
        reports.update(REPO, COMMIT, standing("downloading"))
        for cluster, ident in zip((one, two), ids, strict=True):
            await cluster.until(lambda c=cluster, i=ident: c.node(i).phase == "downloading")  # type: ignore[misc]
            assert cluster.node(ident).bytes.origin == 50
            assert cluster.node(ident).why.startswith("no peers: ")
        await eventually(lambda: reports.open, what="an open roll-out")


@pytest.mark.usefixtures("quick")
async def test_a_rollout_that_begins_later_is_found() -> None:
    cluster, later = Cluster(), [0.0]
    async with cluster.up() as url, running(reports_to(url, clock=lambda: time.monotonic() + later[0])) as reports:
        reports.update(REPO, COMMIT, standing("files_ready"))
        await reports.last_words(may_be_open=True, on_wait=lambda: None)
        assert not reports.open
        later[0] = 60.0  # longer than any report takes to arrive
        ident = await cluster.begin("a")
        await cluster.until(lambda: cluster.node(ident).ready("files"))
        assert cluster.node(ident).gates["files"].seconds == 0


async def test_a_snapshot_that_is_asked_for_again_is_reported_at_once() -> None:
    cluster = Cluster()
    async with cluster.up() as url, running(reports_to(url)) as reports:
        reports.update(REPO, COMMIT, standing("files_ready"))
        await reports.last_words(may_be_open=True, on_wait=lambda: None)
        ident = await cluster.begin("a")
        reports.ask(REPO, COMMIT)
        await cluster.until(lambda: cluster.node(ident).ready("files"))


async def test_last_words_that_no_coordinator_takes_leave_nothing_for_asyncio_to_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LAST_CALL", 0.05)
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))
    reports = reports_to(CLOSED, CLOSED)
    reports.update(REPO, COMMIT, standing("files_ready"))
    await reports.last_words(may_be_open=False, on_wait=lambda: None)
    await asyncio.sleep(0.05)
    gc.collect()
    assert reported == []
    await reports_to().last_words(may_be_open=True, on_wait=lambda: None)


@pytest.mark.usefixtures("quick")
async def test_what_happens_while_the_coordinator_is_away_has_its_own_time() -> None:
    cluster = Cluster()
    async with cluster.up() as url:
        ident = await cluster.begin("a")
        reports = reports_to(url)
        async with running(reports):
            reports.update(REPO, COMMIT, standing("downloading"))
            await cluster.until(lambda: cluster.node(ident).phase == "downloading")
    async with running(reports):
        before = cluster.rollouts.view(ident).elapsed
        reports.update(REPO, COMMIT, standing("files_ready"))
        after = cluster.rollouts.view(ident).elapsed
        await asyncio.sleep(0.5)
        up = cluster.rollouts.view(ident).elapsed
        async with cluster.up():
            await cluster.until(lambda: cluster.node(ident).ready("files"))
            on_the_way = cluster.rollouts.view(ident).elapsed - up
    assert before - 0.01 <= cluster.node(ident).gates["files"].seconds <= after + on_the_way + 0.01


async def test_last_words_to_a_coordinator_that_is_gone_end_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LAST_CALL", 0.05)
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))
    async with running(reports_to(CLOSED)) as reports:
        reports.update(REPO, COMMIT, standing("files_ready"))
        await reports.last_words(may_be_open=False, on_wait=lambda: None)
    gc.collect()
    await asyncio.sleep(0)
    assert failures == []


@pytest.mark.usefixtures("quick")
async def test_a_replaced_token_is_read_again() -> None:
    cluster, known = Cluster(tokens(TOKEN)), ["the-old-token-of-members"]
    async with cluster.up() as url:
        reports = RolloutReports(lambda: [Coordinator(url, known[0])], "a")
        ident = await cluster.begin("a")
        async with running(reports):
            reports.update(REPO, COMMIT, standing("downloading"))
            known[0] = TOKEN
            await cluster.until(lambda: cluster.node(ident).phase == "downloading")


async def test_a_snapshot_that_is_dropped_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER", 0.2)
    cluster = Cluster()
    async with cluster.up() as url, running(reports_to(url)) as reports:
        ident = await cluster.begin("a")
        reports.update(REPO, COMMIT, standing("downloading"))
        reports.keep_only(set())
        await asyncio.sleep(0.4)
        assert cluster.node(ident).phase == "expected"


def settings(tmp_path: Path, url: str) -> Settings:
    return Settings(
        cache_dir=tmp_path,
        mirrors=(MirrorSettings(name="closed", endpoint=CLOSED),),
        coordinators=(url,),
        node_name="gpu001",
    )


async def test_a_fetch_reports_its_end_before_it_ends(tmp_path: Path) -> None:
    cluster = Cluster()
    async with cluster.up() as url, HttpPool() as http:
        ident = await cluster.begin("gpu001")
        rollout = FetchRollout(settings(tmp_path, url), REPO, COMMIT, lambda _line: None)
        async with rollout.reporting(http):
            rollout.progress(PROGRESS)
            rollout.ready()
        assert cluster.node(ident).phase == "files_ready"
        assert cluster.node(ident).bytes.origin == 50


async def test_a_node_that_ends_gathers_no_more_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER", 1000.0)
    monkeypatch.setattr(module, "LAST_CALL", PATIENCE)
    cluster = Cluster()
    async with cluster.up() as url, running(reports_to(url)) as reports:
        ident = await cluster.begin("a")
        reports.update(REPO, COMMIT, standing("downloading"))
        await reports.last_words(may_be_open=False, on_wait=lambda: None)
        assert cluster.node(ident).phase == "downloading"


async def test_a_fetch_reports_its_failure(tmp_path: Path) -> None:
    cluster = Cluster()
    async with cluster.up() as url, HttpPool() as http:
        ident = await cluster.begin("gpu001")
        rollout = FetchRollout(settings(tmp_path, url), REPO, COMMIT, lambda _line: None)
        with pytest.raises(NoSpace):
            async with rollout.reporting(http):
                raise NoSpace("the disk is full", hint="free some")
        failure = cluster.node(ident).failure
        assert failure is not None
        assert (failure.code, failure.message, failure.hint) == ("no_space", "the disk is full", "free some")


async def test_a_fetch_waits_for_a_coordinator_with_an_open_rollout_and_says_so(tmp_path: Path) -> None:
    cluster, lines = Cluster(), []
    async with HttpPool() as http:
        async with cluster.up() as url:
            ident = await cluster.begin("gpu001")
            rollout = FetchRollout(settings(tmp_path, url), REPO, COMMIT, lines.append)
            reporting = rollout.reporting(http)
            await reporting.__aenter__()
            await cluster.until(lambda: cluster.node(ident).phase == "starting")
        rollout.ready()
        ending = asyncio.create_task(reporting.__aexit__(None, None, None))  # type: ignore[arg-type]
        await eventually(lambda: bool(lines), what="the note")
        async with cluster.up():
            await ending
        assert "waiting for the coordinator" in str(lines[0])
        assert cluster.node(ident).ready("files")


async def test_a_model_that_a_command_loads_is_reported_after_the_fetch(tmp_path: Path) -> None:
    cluster = Cluster()
    async with cluster.up() as url:
        ident = await cluster.begin("gpu001", "other")
        rollout = FetchRollout(settings(tmp_path, url), REPO, COMMIT, lambda _line: None)
        async with HttpPool() as http, rollout.reporting(http):
            rollout.ready()
        rollout.engine("loading")
        await rollout.report_engine(last=False)
        assert cluster.node(ident).phase == "loading"
        rollout.engine("loaded")
        rollout.engine("answered")
        rollout.engine("none")
        await rollout.report_engine(last=True)
        assert cluster.node(ident).phase == "answered"
        assert set(cluster.node(ident).gates) == {"files", "loaded", "answered"}
