"""Files that change, fail a check or vanish under a running node: said, not served, and brought again."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.coordinator.tracker.announce_texts import warning_text
from p2pmodel.node.fetch.request import FetchRequest
from p2pmodel.node.node import Node
from p2pmodel.node.snapshot.target import parse_target
from p2pmodel.node.snapshot_watch import SHARE, SnapshotWatch
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.verify import verify
from tests.support.eventually import PATIENCE
from tests.support.fake_hub import FakeHub
from tests.support.node_machine import Machine, machine, torrent, until, until_state
from tests.support.node_swarm import CONTENTS, TRACKER

__all__ = ["machine"]

WEIGHTS = "nested/other.bin"


def repo_of(machine: Machine) -> RepoCache:
    """The cache as another process of this machine sees it."""
    return HubCache(machine.settings.cache_dir).repo(machine.swarm.metainfo.manifest.repo)


def blob_of(machine: Machine, path: str = WEIGHTS) -> Path:
    [file] = [each for each in machine.swarm.metainfo.manifest.files if each.path == path]
    return repo_of(machine).blob_path(file)


def flip(blob: Path) -> None:
    """One bit; size, time and inode stay: a failing disk."""
    status, data = blob.stat(), bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    os.utime(blob, ns=(status.st_atime_ns, status.st_mtime_ns))


async def seeding(machine: Machine, node: Node) -> str:
    ident = (await node.start(torrent(machine.swarm))).id
    await until_state(node, ident, "seeding")
    return ident


async def doubted_then_repaired(machine: Machine, node: Node, ident: str) -> None:
    await node._check_files()  # what `look` does, without its moment of grace
    view = node.transfer(ident)
    assert (view.doubted, view.complete) == (1, False)
    assert view.state in ("active", "queued")
    await until(node, ident, lambda view: view.complete and view.state == "seeding")
    assert node.transfer(ident).doubted == 0
    assert machine.published() == CONTENTS


async def test_a_file_that_was_replaced_is_doubted_and_brought_again(machine: Machine) -> None:
    await machine.seeder()
    async with machine.running() as node:
        ident = await seeding(machine, node)
        blob = blob_of(machine)
        blob.unlink()
        blob.write_bytes(bytes(len(CONTENTS[WEIGHTS])))
        await doubted_then_repaired(machine, node, ident)
        assert any("1 file changed since verified" in line for line in node.transfer(ident).notes)


async def test_a_file_that_was_removed_is_doubted_and_brought_again(machine: Machine) -> None:
    await machine.seeder()
    async with machine.running() as node:
        ident = await seeding(machine, node)
        blob_of(machine).unlink()
        await doubted_then_repaired(machine, node, ident)


async def test_a_snapshot_that_is_in_no_swarm_is_repaired_too(machine: Machine) -> None:
    async with FakeHub(machine.swarm.snapshot) as hub:
        machine.use(mirrors=(MirrorSettings(name="m", endpoint=hub.url),), offline=False)
        async with machine.running() as node:
            ident = (await node.start(FetchRequest(parse_target("org/model")))).id
            await until(node, ident, lambda view: view.state == "ready")
            async with asyncio.timeout(PATIENCE):
                while any(task.get_name().startswith("transfer") for task in asyncio.all_tasks()):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            blob_of(machine).unlink()
            await node._check_files()
            assert not node.transfer(ident).complete
            await until(node, ident, lambda view: view.complete)
            assert machine.published() == CONTENTS


async def test_a_file_with_another_time_is_hashed_and_kept(machine: Machine) -> None:
    async with machine.running() as node:
        seeder = await machine.seeder()
        ident = await seeding(machine, node)
        await seeder.torrents[machine.swarm.metainfo.info_hash].remove()
        inode = blob_of(machine).stat().st_ino
        os.utime(blob_of(machine))
        await doubted_then_repaired(machine, node, ident)
        assert blob_of(machine).stat().st_ino == inode


async def test_damage_that_another_process_found_is_repaired_with_a_new_file(machine: Machine) -> None:
    await machine.seeder()
    async with machine.running() as node:
        ident = await seeding(machine, node)
        flip(blob_of(machine))
        await node._check_files()
        assert node.transfer(ident).complete, "nothing tells it from the verified file"
        assert [f.path for f in verify(repo_of(machine), machine.swarm.metainfo.manifest).corrupt] == [WEIGHTS]
        mapped = blob_of(machine).open("rb")
        with mapped:
            await doubted_then_repaired(machine, node, ident)
            assert os.fstat(mapped.fileno()).st_ino != blob_of(machine).stat().st_ino, "clients may have mapped it"


async def test_a_fetch_never_confirms_what_has_changed(machine: Machine) -> None:
    await machine.seeder()
    async with machine.running() as node:
        ident = await seeding(machine, node)
        os.utime(blob_of(machine))
        assert not (await node.start(torrent(machine.swarm))).complete
        await until(node, ident, lambda view: view.complete)


async def test_a_snapshot_that_another_program_removed_stays_away_until_it_is_asked_for(machine: Machine) -> None:
    await machine.seeder()
    async with machine.running() as node:
        ident = await seeding(machine, node)
        shutil.rmtree(repo_of(machine).folder)
        await node._check_files()
        view = node.transfer(ident)
        assert (view.state, view.complete) == ("failed", False)
        assert view.error is not None
        assert "another program removed" in view.error.message
        await node._check_files()
    async with machine.running() as node:
        assert node.transfer(ident).state == "failed"
        assert machine.published() == {}
        await node.start(torrent(machine.swarm))
        await until(node, ident, lambda view: view.complete)
        assert machine.published() == CONTENTS


async def test_a_snapshot_that_is_back_is_served_again(machine: Machine, tmp_path: Path) -> None:
    await machine.seeder()
    async with machine.running() as node:
        ident = await seeding(machine, node)
    away = tmp_path / "unmounted"
    machine.settings.cache_dir.rename(away)
    async with machine.running() as node:
        assert node.transfer(ident).state == "failed"
        shutil.rmtree(machine.settings.cache_dir, ignore_errors=True)
        away.rename(machine.settings.cache_dir)
        await node._check_files()
        await until_state(node, ident, "seeding")


async def test_a_long_comparison_is_not_repeated_all_the_time() -> None:
    now, looks = 0.0, 0

    async def compare() -> None:
        nonlocal looks, now
        looks += 1
        now += 0.5

    watch = SnapshotWatch(compare, clock=lambda: now)
    await watch.look()
    await watch.look()
    now += 0.4 / SHARE
    await watch.look()
    assert looks == 1
    now += 0.1 / SHARE
    await watch.look()
    assert looks == 2


@pytest.mark.parametrize("gone", [False, True])
async def test_a_paused_transfer_is_doubted_but_stays_paused(machine: Machine, gone: bool) -> None:
    await machine.seeder()
    async with machine.running() as node:
        ident = await seeding(machine, node)
        await node.pause(ident)
        if gone:
            blob_of(machine).unlink()
        else:
            os.utime(blob_of(machine))
        await node._check_files()
        view = node.transfer(ident)
        assert (view.state, view.complete, view.doubted) == ("paused", False, 1)
        await node.resume(ident)
        await until_state(node, ident, "seeding")


async def test_what_peers_complain_about_is_checked_and_repaired(machine: Machine) -> None:
    seeder = await machine.seeder()
    async with machine.running() as node:
        ident = await seeding(machine, node)
        flip(blob_of(machine))
        layout = machine.swarm.metainfo.layout
        span = next(each for each in layout.spans if each.path == WEIGHTS)
        machine.swarm.network.warnings[TRACKER] = warning_text(span.pieces)
        assert machine.engine is not None
        machine.engine.torrents[machine.swarm.metainfo.info_hash].announce()
        await until(node, ident, lambda view: any("as other peers reported" in line for line in view.notes))
        await doubted_then_repaired(machine, node, ident)
    assert seeder.torrents
