"""`p2pmodel wait`: what counts as ready, in the cache alone and at a daemon, and the exit codes."""

import asyncio
import json
from pathlib import Path

import pytest

from p2pmodel.cli.snapshots import wait
from p2pmodel.config.sections.daemon import DaemonSettings
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import Reference, RepoId
from p2pmodel.errors import NoSpace, Unavailable
from p2pmodel.http.server import serving_unix
from p2pmodel.node.transfer.managed_transfer import ManagedTransfer
from p2pmodel.service.control.api import NodeApi
from p2pmodel.service.control.app import control_app
from p2pmodel.store.cache import HubCache
from tests.support.command_line import CommandLine, cli
from tests.support.eventually import PATIENCE
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_machine import Machine, machine, torrent, until_state
from tests.support.stored import CONTENTS, publish

__all__ = ["cli", "machine"]

REPO = RepoId("org/model")


def test_a_complete_snapshot_in_the_cache_is_ready_at_once(cli: CommandLine) -> None:
    manifest = publish(HubCache(cli.hub))
    path = str(HubCache(cli.hub).repo(REPO).snapshot(manifest.commit))
    assert cli("wait", "org/model").out == f"{path}\n"
    done = cli("wait", f"org/model@{manifest.commit}", "--json")
    plain = json.loads(done.out)
    assert (done.code, plain["path"], plain["commit"]) == (0, path, manifest.commit)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("org/none", "--timeout", "0"), 6, "org/none@main is not ready after 0 s: it is not in this cache"),
        (("org/model", "--timeout", "0"), 6, "are missing"),
        (("org/model", "--ready", "loaded", "--timeout", "0"), 6, "no daemon runs"),
        (("org//x", "--timeout", "0"), 2, "is not a repository id"),
        (("org/model", "--timeout", "soon"), 2, "is not a time"),
        (("org/model", "--ready", "warm"), 2, "is not one of"),
    ],
)
def test_what_is_not_ready_ends_with_its_reason(
    cli: CommandLine, arguments: tuple[str, ...], code: int, text: str
) -> None:
    publish(HubCache(cli.hub), paths=["config.json"])
    done = cli("wait", *arguments)
    assert (done.code, done.out) == (code, "")
    assert text in done.err


def test_it_waits_until_the_last_file_is_there(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, looks = HubCache(cli.hub), []
    publish(cache, paths=["config.json"])
    in_cache = wait._in_cache

    def look(settings: Settings, ref: Reference) -> wait.WaitResult:
        looks.append(ref)
        if len(looks) == 2:
            publish(cache, snapshot_of(CONTENTS))
        return in_cache(settings, ref)

    monkeypatch.setattr(wait, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(wait, "_in_cache", look)
    done = cli("wait", "org/model")
    assert (done.code, len(looks)) == (0, 2)
    assert done.err.startswith("waiting for org/model@main: ")


async def test_a_daemon_says_when_files_and_engine_are_ready(machine: Machine, tmp_path: Path) -> None:
    await machine.seeder()
    socket = tmp_path / "d.sock"
    machine.use(daemon=DaemonSettings(socket=socket))
    ref = Reference(machine.swarm.metainfo.manifest.repo, machine.swarm.metainfo.manifest.commit)
    async with machine.running() as node, serving_unix(control_app(NodeApi(node)), socket, grace=0.2):
        with pytest.raises(Unavailable, match="it is not in this cache"):
            await wait._ready(machine.settings, ref, "files", 0.0, quiet=True)
        ident = (await node.start(torrent(machine.swarm))).id
        async with asyncio.timeout(PATIENCE):
            found = await wait._ready(machine.settings, ref, "files", 2 * PATIENCE, quiet=True)
        assert found.path == Path(node.transfer(ident).path)
        with pytest.raises(Unavailable, match="no inference engine"):
            await wait._ready(machine.settings, ref, "loaded", 0.0, quiet=True)
        await until_state(node, ident, "seeding")
        node.set_engine(ident, "loaded")
        assert (await wait._ready(machine.settings, ref, "loaded", 0.0, quiet=True)).commit == ref.revision
        with pytest.raises(Unavailable, match="no inference engine"):
            await wait._ready(machine.settings, ref, "answered", 0.0, quiet=True)


async def test_the_failure_of_a_transfer_ends_the_wait(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(_self: ManagedTransfer) -> None:
        raise NoSpace("the disk is full")

    monkeypatch.setattr(ManagedTransfer, "_run", full)
    socket = tmp_path / "d.sock"
    machine.use(daemon=DaemonSettings(socket=socket))
    manifest = machine.swarm.metainfo.manifest
    async with machine.running() as node, serving_unix(control_app(NodeApi(node)), socket, grace=0.2):
        await until_state(node, (await node.start(torrent(machine.swarm))).id, "failed")
        with pytest.raises(NoSpace, match="the disk is full"):
            await wait._ready(machine.settings, Reference(manifest.repo, manifest.commit), "files", 9, quiet=True)
