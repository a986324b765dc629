"""`p2pmodel alias`: what it moves, what it prints, and its exit codes."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.catalog.publication import read_publication
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.http.server import serving
from tests.support.command_line import CommandLine, cli
from tests.support.coordinators import CLOSED, HOST, PUBLISHERS, token_file
from tests.support.torrent_files import SMALL, torrent_of

__all__ = ["cli"]

ONE, TWO = "a" * 40, "b" * 40
STABLE = "org/tiny@stable"


@pytest.fixture
def urls() -> Iterator[list[str]]:
    """Two coordinators, in a thread; both have two commits."""
    started, loop, found = threading.Event(), asyncio.new_event_loop(), list[str]()
    stop = asyncio.Event()

    async def run() -> None:
        async with AsyncExitStack() as stack:
            for _ in range(2):
                catalog = Catalog()
                for commit, name in ((ONE, "v1"), (TWO, "v2")):
                    await catalog.publish(read_publication(torrent_of(SMALL, commit=commit)), [name])
                app = coordinator_app(Tracker(), catalog, credentials=PUBLISHERS)
                found.append(await stack.enter_async_context(serving(app, HOST, 0, grace=0.1)))
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    assert started.wait(60)
    try:
        yield found
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        loop.close()


def test_set_ls_rollback_and_rm(cli: CommandLine, urls: list[str], tmp_path: Path) -> None:
    where, token = ("--coordinator", urls[0]), str(token_file(tmp_path))
    refused = cli("alias", "set", STABLE, "v1", *where)
    assert (refused.code, "requires a publisher's token" in refused.err) == (4, True)
    assert cli.ok("alias", "ls", *where).splitlines() == ["ALIAS  COMMIT  MOVED  BY  COORDINATOR"]
    env = {"P2PMODEL_PUBLISH_TOKEN_FILE": token}
    assert cli.ok("alias", "set", STABLE, "v1", *where, **env) == f"{STABLE} -> {ONE} at {urls[0]}"
    assert cli.ok("alias", "set", STABLE, "v2", *where, **env) == f"{STABLE} -> {TWO} at {urls[0]}"
    listed = cli.ok("alias", "ls", "org/tiny", *where).splitlines()
    assert [line.split()[:2] for line in listed[1:]] == [[STABLE, TWO]]
    moves = cli.ok("alias", "ls", "--moves", *where).splitlines()
    assert [line.split()[:2] for line in moves[1:]] == [[STABLE, TWO], [STABLE, ONE]]
    plain = json.loads(cli.ok("alias", "rollback", STABLE, *where, "--json", **env))
    assert [(each["commit"], each["coordinator"]) for each in plain["aliases"]] == [(ONE, urls[0])]
    none_left = cli("alias", "rollback", STABLE, *where, **env)
    assert (none_left.code, "never pointed at another commit" in none_left.err) == (1, True)
    assert cli.ok("alias", "rm", STABLE, *where, **env) == f"{STABLE} removed at {urls[0]}"
    assert cli("alias", "rm", STABLE, *where, **env).code == 3


def test_every_coordinator_is_changed_and_an_error_names_those_that_were(
    cli: CommandLine, urls: list[str], tmp_path: Path
) -> None:
    env = {"P2PMODEL_PUBLISH_TOKEN_FILE": str(token_file(tmp_path))}
    both = ("--coordinator", urls[0], "--coordinator", urls[1])
    assert len(cli.ok("alias", "set", STABLE, ONE, *both, **env).splitlines()) == 2
    part = cli("alias", "set", STABLE, TWO, "--coordinator", urls[0], "--coordinator", CLOSED, **env)
    assert part.code == 6
    assert f"(done at {urls[0]})" in part.err
    plain = json.loads(cli.ok("alias", "ls", *both, "--json"))
    assert [each["commit"] for each in plain["aliases"]] == [TWO, ONE]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("set", "org/tiny", "v1"), "names no alias; write org/tiny@NAME"),
        (("set", "org/tiny@main", "v1"), "main cannot be an alias: the hub uses this name"),
        (("set", f"org/tiny@{ONE}", "v1"), "is a commit, not a name"),
        (("set", STABLE, "a b"), "'a b' is not a revision"),
        (("ls",), "no coordinator is configured"),
    ],
)
def test_a_wrong_call_is_one_line(cli: CommandLine, arguments: tuple[str, ...], text: str) -> None:
    done = cli("alias", *arguments)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert text in done.err
