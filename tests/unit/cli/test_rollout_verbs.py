"""`p2pmodel rollout`: what it prints, and its exit codes."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from p2pmodel.cli.rollout import tables
from p2pmodel.coordinator.rollout.nodes import NodeBytes, NodeFailure, NodeReport, PreflightCheck, told_on_behalf
from p2pmodel.coordinator.rollout.rollout import MinReady, Rollout, RolloutSpec
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.credentials import Caller, Rights
from p2pmodel.coordinator.server.rollouts.registry import Rollouts
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.core.content.names import RepoId
from p2pmodel.http.server import serving
from tests.support.command_line import CommandLine, cli
from tests.support.coordinators import CLOSED, HOST, PUBLISH_TOKEN, PUBLISHERS, token_file

__all__ = ["cli"]

REPO, COMMIT = RepoId("org/model"), "c" * 40
TEAM = Caller(Rights.PUBLISHER, "seeder")


def rollout(*nodes: str, min_ready: str = "100%") -> Rollout:
    spec = RolloutSpec(REPO, COMMIT, nodes, ("files", "loaded"), min_ready=MinReady.parse(min_ready))
    return Rollout("abcd1234", spec, "team", began=0.0, began_wall=1e9)


def test_the_page_has_gates_nodes_and_reasons() -> None:
    each = rollout("a", "b", "c", "d", min_ready="2")
    for name in "ab":
        each.take(name, NodeReport("loaded", {"files": 1.0}, total=100, bytes=NodeBytes(origin=52, peers=48)), 4, 1e9)
    failure = NodeFailure("no_space", "the disk is full", "free some")
    each.take("c", NodeReport("failed", failure=failure), 5, 1e9)
    check = PreflightCheck("disk", ok=False, detail="1 GB free, 16 GB needed")
    each.take("d", NodeReport("preflight", preflight=(check,)), 5, 1e9, told_on_behalf)
    each.take("x", NodeReport("downloading"), 5, 1e9)
    page = tables.page(each.view(30))
    for text in (
        "2 of 4 loaded (enough)",
        "1.04 copies from mirrors",
        "the disk is full; free some",
        "disk: 1 GB free, 16 GB needed",
        "unlisted: x",
        "slow: c (failed: the disk is full), d (preflight: never heard of)",
    ):
        assert text in page
    lines = page.splitlines()
    assert lines.index(next(line for line in lines if line.startswith("c "))) < lines.index(
        next(line for line in lines if line.startswith("a "))
    )


def test_a_large_rollout_lists_first_what_needs_attention() -> None:
    each = rollout(*(f"n{i:04}" for i in range(1000)))
    for i in range(990):
        each.take(f"n{i:04}", NodeReport("loaded"), 1, 1e9)
    page = tables.page(each.view(2))
    assert "n0999" in page
    assert "... and 960 more nodes" in page
    assert len(tables.listed_first(each.view(2), None)) == 1000


class Server:
    """A coordinator in a thread; `of` runs a coroutine there."""

    def __init__(self, url: str, rollouts: Rollouts, loop: asyncio.AbstractEventLoop) -> None:
        self.url = url
        self.rollouts = rollouts
        self._loop = loop

    def begin(self, *nodes: str, min_ready: str = "100%") -> str:
        spec = RolloutSpec(REPO, COMMIT, nodes, min_ready=MinReady.parse(min_ready))
        return self._wait(lambda: self.rollouts.create(spec, TEAM))[0].id  # type: ignore[no-any-return]

    def ready(self, name: str) -> None:
        self._wait(lambda: self.rollouts.report(name, REPO, COMMIT, NodeReport("files_ready")))

    def _wait(self, work: Callable):  # type: ignore[type-arg,no-untyped-def]
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(60)


@pytest.fixture
def server() -> Iterator[Server]:
    with _served() as found:
        yield found


@contextmanager
def _served() -> Iterator[Server]:
    started, loop = threading.Event(), asyncio.new_event_loop()
    stop, found = asyncio.Event(), []

    async def run() -> None:
        rollouts = Rollouts()
        app = coordinator_app(Tracker(), Catalog(), credentials=PUBLISHERS, rollouts=rollouts)
        async with serving(app, HOST, 0, grace=0.1) as url:
            found.append(Server(url, rollouts, loop))
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    assert started.wait(60)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        loop.close()


def test_show_watch_and_end(cli: CommandLine, server: Server, tmp_path: Path) -> None:
    ident = server.begin("a", "b")
    server.ready("a")
    where = ("--coordinator", server.url)
    shown = cli("rollout", "show", *where, "--json")
    assert shown.code == 0, shown.err
    plain = json.loads(shown.out)
    assert (plain["id"], plain["report"]["gates"][0]["passed"]) == (ident, 1)
    assert "1 of 2 files" in cli("rollout", "show", ident, *where).out
    listed = cli("rollout", "ls", *where)
    assert ident in listed.out
    refused = cli("rollout", "end", ident, *where)
    assert refused.code == 4
    token = str(token_file(tmp_path, PUBLISH_TOKEN))
    assert "ended" in cli("rollout", "end", ident, *where, P2PMODEL_PUBLISH_TOKEN_FILE=token).out
    late = cli("rollout", "watch", ident, *where, "-q")
    assert (late.code, "1 of 2 nodes passed 'files'" in late.err) == (6, True)


def test_a_watch_ends_when_enough_are_ready(cli: CommandLine, server: Server) -> None:
    ident = server.begin("a", "b", min_ready="1")
    server.ready("a")
    done = cli("rollout", "watch", "--until-enough", "--coordinator", server.url, "--json")
    assert done.code == 0, done.err
    assert (json.loads(done.out)["id"], json.loads(done.out)["state"]) == (ident, "open")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("show", "abcd1234"), 2, "no coordinator is configured"),
        (("show", "xyz", "--coordinator", CLOSED), 2, "is not the id of a roll-out"),
        (("show", "--coordinator", CLOSED), 6, "cannot be reached"),
        (("show", "--plot", "x.pdf", "--coordinator", CLOSED), 2, "a PNG or an SVG"),
        (("show", "--plot", "/no/such/x.png", "--coordinator", CLOSED), 2, "no directory"),
        (("end",), 2, "Missing argument"),
    ],
)
def test_a_wrong_call_is_one_line(cli: CommandLine, arguments: tuple[str, ...], code: int, text: str) -> None:
    done = cli("rollout", *arguments)
    assert done.code == code
    assert text in done.err
    assert len(done.err.splitlines()) == 1


def test_a_coordinator_without_rollouts_says_so(cli: CommandLine, server: Server) -> None:
    done = cli("rollout", "show", "--coordinator", server.url)
    assert (done.code, "have no roll-out" in done.err) == (3, True)


@pytest.mark.parametrize(("suffix", "begin"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_the_curve_is_drawn(tmp_path: Path, suffix: str, begin: bytes) -> None:
    # In a process of its own: matplotlib keeps the files of its fonts open.
    code = (
        "from pathlib import Path; from tests.unit.cli.test_rollout_verbs import NodeReport, rollout;"
        "each = rollout('a', 'b'); each.take('a', NodeReport('loaded'), 3, 1e9);"
        "from p2pmodel.cli.plots import draw_rollout;"
        f"draw_rollout(each.view(9), Path({str(tmp_path / f'c.{suffix}')!r}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
    assert (tmp_path / f"c.{suffix}").read_bytes().startswith(begin)
