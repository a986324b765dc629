"""A long-lived node: one snapshot is one transfer, commands survive a restart, and no task is left at the end."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from p2pmodel.config.sections.daemon import DaemonSettings
from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.coordinator.client.catalog import find
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.core.content.names import Reference, RepoId
from p2pmodel.core.progress.views import LimitsView, RateLimits
from p2pmodel.errors import Conflict, EntryNotFound, LocalResource, NotFound, Unavailable, Untrusted
from p2pmodel.http.server import serving
from p2pmodel.node.fetch.request import FetchRequest
from p2pmodel.node.node import Node
from p2pmodel.node.snapshot.target import parse_target
from p2pmodel.node.transfer import retries
from p2pmodel.store.cache import HubCache
from p2pmodel.store.state.transfer_records import TransferRecords
from p2pmodel.swarm.memory.engine import MemoryEngine
from tests.support.coordinators import PUBLISHERS, client, token_file
from tests.support.disks import Disk, disk
from tests.support.eventually import PATIENCE, eventually
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_machine import Machine, machine, other_swarm, torrent, until, until_state
from tests.support.node_swarm import CONTENTS, Swarm, without_mirrors

__all__ = ["disk", "machine"]


async def test_a_snapshot_is_downloaded_and_served_to_others(machine: Machine) -> None:
    seeder = await machine.seeder()
    async with machine.running() as node:
        begun = await node.start(torrent(machine.swarm))
        view = await until_state(node, begun.id, "seeding")
        assert view.complete
        assert view.timings is not None
        assert view.progress.from_peers == view.size == machine.swarm.metainfo.manifest.total_size
        assert machine.published() == CONTENTS
        await seeder.torrents[machine.swarm.metainfo.info_hash].remove()
        late = await machine.stack.enter_async_context(machine.swarm.engine("127.0.0.3"))
        async with machine.swarm.transfer(late, cache=machine.swarm.cache("late")) as transfer:
            await transfer.download()
        await until(node, begun.id, lambda view: view.progress.uploaded >= view.size)


async def test_the_readiness_of_an_engine_holds_until_changed_or_expired(machine: Machine) -> None:
    await machine.seeder()
    async with machine.running() as node:
        ident = (await node.start(torrent(machine.swarm))).id
        with pytest.raises(Conflict, match="is not complete here"):
            node.set_engine(ident, "loaded")
        await until_state(node, ident, "seeding")
        assert node.set_engine(ident, "loaded", seconds=0.05).engine_ready
        assert node.set_engine(ident, "loaded", seconds=60).engine_ready
        version = node.version.value
        assert node.set_engine(ident, "loaded", seconds=0.05).engine_ready
        assert node.version.value > version
        await until(node, ident, lambda view: not view.engine_ready)
        assert node.transfer(ident).engine_reached == "loaded"
        gates = node.transfer(ident).gates
        assert None not in (gates.files, gates.loaded)
        assert gates.files <= gates.loaded  # type: ignore[operator]  # neither is None
        assert node.set_engine(ident, "answered").engine_reached == "answered"
        assert node.set_engine(ident, "loaded").engine_reached == "answered"
    async with machine.running() as node:
        await until_state(node, ident, "seeding")
        assert not node.transfer(ident).engine_ready
        assert node.transfer(ident).engine_reached == "none"


async def test_two_fetches_of_one_snapshot_are_one_transfer(machine: Machine) -> None:
    async with machine.running() as node:
        both = await asyncio.gather(node.start(torrent(machine.swarm)), node.start(torrent(machine.swarm)))
        assert both[0].id == both[1].id
        assert len(node.transfers()) == 1
        await machine.seeder()
        await until_state(node, both[0].id, "seeding")


async def test_additional_files_of_a_second_fetch_are_downloaded_too(machine: Machine) -> None:
    await machine.seeder()
    async with machine.running() as node:
        ident = (await node.start(torrent(machine.swarm, include=("*.json",)))).id
        await until_state(node, ident, "seeding")
        assert set(machine.published()) == {"config.json"}
        again = await node.start(torrent(machine.swarm, include=("nested/*",)))
        assert not again.complete
        await until_state(node, ident, "seeding")
        assert set(machine.published()) == {"config.json", "nested/other.bin"}
        await node.start(torrent(machine.swarm))
        await until(node, ident, lambda view: view.complete and view.state == "seeding")
        assert machine.published() == CONTENTS


async def test_a_pattern_that_matches_no_file_makes_no_transfer(machine: Machine) -> None:
    async with machine.running() as node:
        with pytest.raises(EntryNotFound):
            await node.start(torrent(machine.swarm, include=("*.gguf",)))
        assert node.transfers() == ()


async def test_a_paused_transfer_neither_downloads_nor_uploads(machine: Machine) -> None:
    async with machine.running() as node:
        ident = (await node.start(torrent(machine.swarm))).id
        await until_state(node, ident, "active")
        assert (await node.pause(ident)).state == "paused"
        await machine.seeder()
        async with asyncio.timeout(PATIENCE):
            while machine.engine.torrents:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await node.resume(ident)).state in ("queued", "active")
        await until_state(node, ident, "seeding")
        assert machine.published() == CONTENTS
        await node.pause(ident)
        assert node.transfer(ident).complete


async def test_a_refused_transfer_leaves_its_swarm_until_it_is_asked_for_again(machine: Machine) -> None:
    await machine.seeder()
    async with machine.running() as node:
        ident = (await node.start(torrent(machine.swarm))).id
        await until_state(node, ident, "seeding")
        node.refuse(ident, Untrusted("its key is revoked"))
        view = await until_state(node, ident, "failed")
        assert view.error is not None
        assert (view.error.code, view.complete) == ("untrusted", True)
        engine = node.context.engine
        assert isinstance(engine, MemoryEngine)
        await eventually(lambda: not engine.torrents, what="it has left the swarm")
        await node.resume(ident)
        await until_state(node, ident, "seeding")


async def test_fetching_again_resumes_a_paused_transfer(machine: Machine) -> None:
    async with machine.running() as node:
        ident = (await node.start(torrent(machine.swarm))).id
        await node.pause(ident)
        assert (await node.start(torrent(machine.swarm))).state != "paused"


async def test_commands_survive_a_restart_of_the_node(machine: Machine) -> None:
    others = [other_swarm(machine, n) for n in (1, 2)]
    async with machine.running() as node:
        ident = (await node.start(torrent(machine.swarm), priority=7)).id
        paused = (await node.start(torrent(others[0]))).id
        gone = (await node.start(torrent(others[1]))).id
        await node.pause(paused)
        await node.cancel(gone)
    await machine.seeder()
    async with machine.running() as node:
        assert {(view.id, view.priority) for view in node.transfers()} == {(ident, 7), (paused, 0)}
        assert node.transfer(paused).state == "paused"
        view = await until_state(node, ident, "seeding")
        assert view.repo == "org/model"
    assert machine.published() == CONTENTS


async def test_a_restart_serves_again_without_hashing(machine: Machine) -> None:
    await machine.seeder()
    async with machine.running() as node:
        ident = (await node.start(torrent(machine.swarm))).id
        await until_state(node, ident, "seeding")
    seen = []
    async with machine.running() as node:
        while (view := node.transfer(ident)).state != "seeding":
            version = node.version.value
            seen.append(view.progress)
            assert await node.version.beyond(version, timeout=PATIENCE)
        assert view.complete
        assert view.progress.from_cache == view.size
    assert max((p.done for p in seen if p.phase == "checking"), default=0) == 0, "bytes were hashed"


async def test_a_restart_does_not_take_a_name_back(machine: Machine) -> None:
    """By then `main` may mean another commit."""
    async with FakeHub(machine.swarm.snapshot) as hub:
        machine.use(mirrors=(MirrorSettings(name="m", endpoint=hub.url),), offline=False)
        async with machine.running() as node:
            ident = (await node.start(FetchRequest(parse_target("org/model")))).id
            await until(node, ident, lambda view: view.complete)
        ref = HubCache(machine.settings.cache_dir).root / "models--org--model" / "refs" / "main"
        assert ref.read_text() == machine.swarm.snapshot.commit
        ref.write_text("ab" * 20)
        async with machine.running() as node:
            await until(node, ident, lambda view: view.progress.phase == "done")
        assert ref.read_text() == "ab" * 20


async def test_a_transfer_from_mirrors_alone_is_ready_and_not_seeded(machine: Machine) -> None:
    async with FakeHub(machine.swarm.snapshot) as hub:
        machine.use(mirrors=(MirrorSettings(name="m", endpoint=hub.url),), offline=False)
        async with machine.running() as node:
            ident = (await node.start(FetchRequest(parse_target("org/model")))).id
            view = await until(node, ident, lambda view: view.state == "ready" and view.progress.phase == "done")
            assert view.revisions == ("main",)
            assert view.progress.from_mirrors > 0
    assert machine.published() == CONTENTS
    assert machine.refs() == {"main": machine.swarm.snapshot.commit}


async def test_a_snapshot_from_mirrors_is_offered_if_there_are_coordinators(machine: Machine) -> None:
    async with FakeHub(machine.swarm.snapshot) as hub, coordinator() as url:
        publishes = token_file(machine.swarm.root)
        machine.use(
            mirrors=(MirrorSettings(name="m", endpoint=hub.url),),
            offline=False,
            coordinators=(url,),
            publish_token_file=publishes,
        )
        async with machine.running() as node:
            ident = (await node.start(FetchRequest(parse_target("org/model")))).id
            view = await until_state(node, ident, "seeding")
            assert view.completion.from_mirrors > 0
            async with asyncio.timeout(PATIENCE):
                while (answer := await find(Reference.parse("org/model"), [client(url)], 1.0)).metainfo is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            assert answer.metainfo.info_hash in machine.engine.torrents
            assert answer.metainfo.manifest == machine.swarm.snapshot.manifest
        async with machine.running() as node:
            await until_state(node, ident, "seeding")


async def test_a_part_of_a_snapshot_is_not_offered(machine: Machine) -> None:
    async with FakeHub(machine.swarm.snapshot) as hub, coordinator() as url:
        machine.use(mirrors=(MirrorSettings(name="m", endpoint=hub.url),), offline=False, coordinators=(url,))
        async with machine.running() as node:
            ident = (await node.start(FetchRequest(parse_target("org/model"), include=("*.json",)))).id
            await until(node, ident, lambda view: view.state == "ready" and view.progress.phase == "done")
            await asyncio.sleep(0.1)
            assert (await find(Reference.parse("org/model"), [client(url)], 1.0)).metainfo is None


@asynccontextmanager
async def coordinator() -> AsyncIterator[str]:
    """A real one; its URL."""
    async with serving(coordinator_app(Tracker(), Catalog(), credentials=PUBLISHERS), "127.0.0.1", 0, grace=0.2) as url:
        yield url


async def test_a_name_and_the_commit_it_means_are_one(machine: Machine) -> None:
    async with FakeHub(machine.swarm.snapshot) as hub:
        machine.use(mirrors=(MirrorSettings(name="m", endpoint=hub.url),), offline=False)
        async with machine.running() as node:
            by_commit = await node.start(FetchRequest(parse_target(f"org/model@{machine.swarm.snapshot.commit}")))
            await until(node, by_commit.id, lambda view: view.complete)
            assert machine.refs() == {}
            by_name = await node.start(FetchRequest(parse_target("org/model")))
            assert by_name.id == by_commit.id
            await until(node, by_commit.id, lambda view: view.complete)
    assert machine.refs() == {"main": machine.swarm.snapshot.commit}


async def test_a_name_points_at_the_commit_it_was_found_to_mean_last(machine: Machine) -> None:
    old, new = snapshot_of(CONTENTS), snapshot_of(CONTENTS | {"config.json": b"new"})
    async with machine.running() as node:
        for snapshot in (old, new):
            async with FakeHub(snapshot) as hub:
                node.settings = node.settings.model_copy(
                    update={"mirrors": (MirrorSettings(name="m", endpoint=hub.url),), "offline": False}
                )
                view = await node.start(FetchRequest(parse_target("org/model")))
                await until(node, view.id, lambda view: view.complete)
        by_commit = {view.commit: view.revisions for view in node.transfers()}
        assert by_commit == {old.commit: (), new.commit: ("main",)}
        assert machine.refs() == {"main": new.commit}
    async with machine.running() as node:
        assert {view.commit: view.revisions for view in node.transfers()} == by_commit


async def test_only_so_many_download_at_a_time(machine: Machine) -> None:
    machine.use(daemon=DaemonSettings(max_active=1))
    others = [other_swarm(machine, n) for n in (1, 2)]
    async with machine.running() as node:
        first = (await node.start(torrent(machine.swarm))).id
        second = (await node.start(torrent(others[0]))).id
        assert [view.state for view in node.transfers()] == ["active", "queued"]
        urgent = (await node.start(torrent(others[1]), priority=1)).id
        await until_state(node, urgent, "active")
        await until_state(node, first, "queued")
        await node.prioritise(second, 2)
        await until_state(node, second, "active")
        await until_state(node, urgent, "queued")
        for number, swarm in enumerate([*others, machine.swarm]):
            await machine.seeder(swarm, f"127.0.0.{10 + number}")
        for ident in (second, urgent, first):
            await until_state(node, ident, "seeding")


async def test_a_failed_transfer_has_its_error_and_the_others_continue(machine: Machine) -> None:
    machine.use(daemon=DaemonSettings(max_active=1), swarm=without_mirrors(peer_timeout=0.1, stall_timeout=0.3))
    other = other_swarm(machine, 1)
    await machine.seeder(other)
    async with machine.running() as node:
        failing = (await node.start(torrent(machine.swarm))).id
        fine = (await node.start(torrent(other))).id
        view = await until_state(node, failing, "failed")
        assert view.error is not None
        assert view.error.code == "unavailable"
        assert "no source for" in view.error.message
        await until_state(node, fine, "seeding")
        await machine.seeder(host="127.0.0.9")
        await node.resume(failing)
        await until_state(node, failing, "seeding")
    assert any("failed" in note for note in machine.notes)


async def test_a_transfer_without_sources_is_retried(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_RETRY", 0.3)
    machine.use(swarm=without_mirrors(peer_timeout=0.1, stall_timeout=0.3))
    async with machine.running() as node:
        ident = (await node.start(torrent(machine.swarm))).id
        for _ in range(2):
            await until_state(node, ident, "failed")
            await until_state(node, ident, "active")
        await machine.seeder()
        await until_state(node, ident, "seeding")
        assert node.transfer(ident).error is None


async def test_a_fault_of_this_machine_is_not_tried_again(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_RETRY", 0.01)
    machine.settings.cache_dir.write_text("a file")
    async with machine.running() as node:
        ident = (await node.start(torrent(machine.swarm))).id
        await until_state(node, ident, "failed")
        await asyncio.sleep(0.1)
        assert node.transfer(ident).error.code == "local_resource"


async def test_a_transfer_that_lacks_space_goes_on_once_there_is_some(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, disk: Callable[[Path, str], Disk]
) -> None:
    monkeypatch.setattr(retries, "FIRST_RETRY", 0.01)
    monkeypatch.setattr(retries, "LOOK_EVERY", 0.02)
    small = disk(machine.settings.cache_dir, "96k")
    await machine.seeder()
    async with machine.running() as node:
        ident = (await node.start(torrent(machine.swarm))).id
        await until_state(node, ident, "failed")
        assert node.transfer(ident).error.code == "no_space"
        await asyncio.sleep(0.2)
        assert sum("failed" in note for note in machine.notes) == 1, "it was tried again without space"
        assert any("goes on by itself once there is space" in note for note in machine.notes)
        small.remount("size=20m")
        await until_state(node, ident, "seeding")
        assert machine.published() == CONTENTS


async def test_a_cancelled_transfer_is_removed_and_its_files_stay(machine: Machine) -> None:
    await machine.seeder()
    async with machine.running() as node:
        ident = (await node.start(torrent(machine.swarm))).id
        await until_state(node, ident, "seeding")
        await node.cancel(ident)
        assert node.transfers() == ()
        for command in (node.cancel, node.pause, node.resume):
            with pytest.raises(NotFound):
                await command(ident)
        assert machine.published() == CONTENTS
        assert machine.engine.torrents == {}


async def test_removed_it_is_gone_from_the_cache(machine: Machine) -> None:
    await machine.seeder()
    manifest = machine.swarm.metainfo.manifest
    async with machine.running() as node:
        ident = (await node.start(torrent(machine.swarm))).id
        await until_state(node, ident, "seeding")
        assert await node.remove(manifest.repo, manifest.commit) >= len(CONTENTS["model.safetensors"])
        assert node.transfers() == ()
        assert machine.published() == {}
        with pytest.raises(NotFound):
            await node.remove(manifest.repo, manifest.commit)
        with pytest.raises(NotFound):
            await node.remove(RepoId("org/none"), "ab" * 20)
        await node.start(torrent(machine.swarm))
        await until_state(node, ident, "seeding")
    assert machine.published() == CONTENTS


async def test_removing_a_snapshot_keeps_the_files_of_an_active_transfer(machine: Machine) -> None:
    old = machine.swarm
    new = Swarm(machine.root, snapshot_of(CONTENTS | {"config.json": b"new"}))
    new.network = old.network
    await machine.seeder()
    async with machine.running() as node:
        first = (await node.start(torrent(old))).id
        await until_state(node, first, "seeding")
        second = (await node.start(torrent(new))).id
        await until(node, second, lambda view: view.progress.phase == "downloading")
        assert await node.remove(old.metainfo.manifest.repo, old.metainfo.manifest.commit) < 10_000
        await machine.seeder(new, "127.0.0.7")
        await until_state(node, second, "seeding")
        assert node.transfer(second).progress.from_cache > 0
    assert machine.published(new) == CONTENTS | {"config.json": b"new"}


async def test_deleted_files_are_downloaded_again(machine: Machine) -> None:
    await machine.seeder()
    async with machine.running() as node:
        ident = (await node.start(torrent(machine.swarm))).id
        await until_state(node, ident, "seeding")
        assert (await node.start(torrent(machine.swarm))).complete
        shutil.rmtree(HubCache(machine.settings.cache_dir).repo(machine.swarm.metainfo.manifest.repo).folder)
        assert not (await node.start(torrent(machine.swarm))).complete
        await until(node, ident, lambda view: view.complete)
    assert machine.published() == CONTENTS


async def test_limits_change_while_it_runs(machine: Machine) -> None:
    machine.use(swarm=without_mirrors(upload_limit=5))
    async with machine.running() as node:
        assert node.limits == LimitsView(5, 0, 5, 0)
        assert node.limit(RateLimits(1000, 2000)) == node.limits == LimitsView(1000, 2000, 1000, 2000)
        assert machine.engine.limits == (1000, 1000), "and as much over HTTP"


async def test_the_time_of_day_limits_it(machine: Machine) -> None:
    machine.use(daemon=DaemonSettings(upload_schedule=("00:00-24:00=7",)), swarm=without_mirrors(upload_limit=5))
    async with machine.running() as node:
        await asyncio.sleep(0)
        assert node.limits == LimitsView(5, 0, 7, 0, ("00:00-24:00=7",))
        assert machine.engine.limits == (7, 0)
        assert node.limit(RateLimits(1, 2)) == LimitsView(1, 2, 7, 2, ("00:00-24:00=7",))


async def test_a_folder_is_for_one_node(machine: Machine) -> None:
    async with machine.running() as node:
        with pytest.raises(LocalResource, match="another daemon"):
            async with Node(node.context, machine.settings, machine.root / "state"):
                pass
    async with machine.running():
        pass


async def test_damaged_records_are_reported_and_the_others_continue(machine: Machine) -> None:
    async with machine.running() as node:
        ident = (await node.start(torrent(machine.swarm))).id
    folder = machine.root / "state" / "transfers"
    (folder / "0123456789ab.json").write_text("{")
    TransferRecords(folder).save_torrent(ident, b"no torrent")
    async with machine.running() as node:
        assert [view.id for view in node.transfers()] == [ident]
        view = await until_state(node, ident, "failed")
        assert "no mirror may be asked" in view.error.message
    assert any("0123456789ab.json is damaged" in note for note in machine.notes)


async def test_a_stopped_node_accepts_no_transfers(machine: Machine) -> None:
    async with machine.running() as node:
        pass
    with pytest.raises(Unavailable):
        await node.start(torrent(machine.swarm))


async def test_notes_of_the_lookup_are_stored(machine: Machine) -> None:
    async with FakeHub(machine.swarm.snapshot) as hub:
        mirror = MirrorSettings(name="m", endpoint=hub.url)
        machine.use(mirrors=(mirror,), offline=False, coordinators=("http://127.0.0.1:9",))
        async with machine.running() as node:
            view = await node.start(FetchRequest(parse_target("org/model")))
            assert view.note_count >= 1
            assert "no coordinator has org/model@main" in view.notes[0]
            await until(node, view.id, lambda view: view.complete)
