"""Follow lists of a real node over the in-memory swarm, with a clock of the test."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from p2pmodel.config.sections.daemon import FollowSettings
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import Unavailable
from p2pmodel.node.fetch.request import FetchRequest
from p2pmodel.node.follow.follower import Follower
from p2pmodel.node.node import Node
from p2pmodel.node.snapshot.target import ResolvedTarget
from tests.support.coordinators import catalog_of
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_machine import Machine, machine, torrent, until, until_state
from tests.support.node_swarm import CONTENTS, TRACKER, Swarm

__all__ = ["machine"]

MIDNIGHT = datetime(2026, 5, 1, tzinfo=UTC).timestamp()
NOON = MIDNIGHT + 12 * 3600
DAY = 86400.0
NIGHT = FollowSettings(repo="org/model", window="22:00-06:00", zone="UTC")


@dataclass
class Outside:
    """What the revisions of repositories lead to, and the time. `failing` counts failures to come."""

    leads: dict[str, Swarm]
    now: float = MIDNIGHT
    failing: int = 0
    asked: list[str] = field(default_factory=list)

    async def find(self, request: FetchRequest) -> ResolvedTarget:
        assert isinstance(request.target, Reference)
        self.asked.append(str(request.target))
        if self.failing:
            self.failing -= 1
            raise Unavailable("no mirror answers")
        metainfo = self.leads[str(request.target)].metainfo
        refs = (request.target.revision,)
        return ResolvedTarget(metainfo.manifest, metainfo, refs, vouched_by="coordinator", trackers=(TRACKER,))

    def follower(self, node: Node) -> Follower:
        return Follower(node, now=lambda: self.now, dice=lambda: 0.0, find=self.find)


@pytest.fixture
def outside(machine: Machine) -> Outside:
    machine.use(follow=(NIGHT,))
    return Outside({"org/model@main": machine.swarm})


def moved(machine: Machine) -> Swarm:
    """The branch at another commit."""
    swarm = Swarm(machine.root, snapshot_of(CONTENTS | {"config.json": b"{1}"}))
    swarm.network = machine.swarm.network
    return swarm


async def test_a_snapshot_is_downloaded_in_its_window_and_waits_outside(machine: Machine, outside: Outside) -> None:
    async with machine.running() as node:
        follower = outside.follower(node)
        outside.now = NOON
        await follower.look()
        assert (outside.asked, node.transfers()) == ([], ())
        outside.now += DAY / 2
        await follower.look()
        assert outside.asked == ["org/model@main"]
        [view] = node.transfers()
        assert (view.state, view.priority, view.awaits_window) == ("active", -10, False)
        outside.now += DAY / 2
        follower.apply()
        view = await until(node, view.id, lambda view: view.state == "queued")
        assert (view.awaits_window, view.prefetch) == (True, True)
        await machine.seeder()
        assert not node.context.engine.torrents  # type: ignore[attr-defined]  # the engine in memory
        outside.now += DAY / 2
        follower.apply()
        view = await until_state(node, view.id, "seeding")
        assert machine.published() == CONTENTS
        [shown] = follower.views()
        assert shown.snapshots[0].complete
        outside.now += DAY / 2
        follower.apply()
        assert node.transfer(view.id).state == "seeding"
        assert not node.transfer(view.id).awaits_window


async def test_a_restart_outside_the_window_starts_nothing(machine: Machine, outside: Outside) -> None:
    async with machine.running() as node:
        await outside.follower(node).look()
    await machine.seeder()
    outside.now = NOON
    async with machine.running() as node:
        [view] = node.transfers()
        assert view.state == "queued"
        follower = outside.follower(node)
        await follower.restore()
        await follower.look()
        [view] = node.transfers()
        assert (view.state, view.awaits_window, view.followed) == ("queued", True, True)
        assert len(outside.asked) == 1
        [shown] = follower.views()
        assert [each.commit for each in shown.snapshots] == [machine.swarm.snapshot.commit]
        outside.now += DAY / 2
        follower.apply()
        await until_state(node, view.id, "seeding")


async def test_what_a_client_asks_for_does_not_wait_and_the_rest_does(machine: Machine, outside: Outside) -> None:
    async with machine.running() as node:
        follower = outside.follower(node)
        await follower.look()
        outside.now = NOON
        follower.apply()
        await machine.seeder()
        ident = (await node.start(torrent(machine.swarm, include=("*.json",)))).id
        view = await until(node, ident, lambda view: view.complete and view.state == "seeding")
        assert set(machine.published()) == {"config.json"}
        assert view.awaits_window
        assert not follower.views()[0].snapshots[0].complete
        outside.now += DAY / 2
        follower.apply()
        await until(node, ident, lambda view: view.complete and not view.prefetch)
        assert machine.published() == CONTENTS


async def test_resume_takes_a_waiting_transfer_out_of_its_window(machine: Machine, outside: Outside) -> None:
    await machine.seeder()
    async with machine.running() as node:
        follower = outside.follower(node)
        outside.now = MIDNIGHT
        follower.apply()
        await follower.look()
        [view] = node.transfers()
        await node.pause(view.id)
        await follower.look()
        assert node.transfer(view.id).state == "paused"
        outside.now = NOON
        follower.apply()
        await node.resume(view.id)
        if not node.transfer(view.id).complete:
            await node.resume(view.id)
        await until_state(node, view.id, "seeding")


async def test_a_moved_branch_replaces_what_only_the_list_asked_for(machine: Machine, outside: Outside) -> None:
    async with machine.running() as node:
        follower = outside.follower(node)
        await follower.look()
        [old] = node.transfers()
        outside.leads["org/model@main"] = moved(machine)
        await follower.look()
        assert [view.id for view in node.transfers()] == [old.id], "it is not due yet"
        outside.now += 1000
        await follower.look()
        [new] = node.transfers()
        assert new.commit == outside.leads["org/model@main"].snapshot.commit
        await node.start(torrent(outside.leads["org/model@main"]))
        outside.leads["org/model@main"] = machine.swarm
        outside.now += 1000
        await follower.look()
        assert {view.commit for view in node.transfers()} == {new.commit, old.commit}, "a client asked for it"


async def test_a_failure_is_noted_once_and_tried_again_after_longer_and_longer_pauses(
    machine: Machine, outside: Outside
) -> None:
    async with machine.running() as node:
        follower = outside.follower(node)
        outside.failing = 3
        for seconds in (0, 59, 60, 119, 120):
            outside.now += seconds
            await follower.look()
        assert len(outside.asked) == 3
        assert follower.views()[0].error == "no mirror answers"
        assert sum("cannot follow org/model@main" in line for line in machine.notes) == 1
        outside.now += 300
        await follower.look()
        assert len(node.transfers()) == 1
        assert follower.views()[0].error == ""


async def test_new_lists_apply_at_once_and_removed_ones_stop_their_downloads(
    machine: Machine, outside: Outside
) -> None:
    async with machine.running() as node:
        follower = outside.follower(node)
        follower.change(machine.settings.model_copy(update={"follow": ()}))
        await follower.look()
        assert outside.asked == []
        follower.change(machine.settings)
        await follower.look()
        [view] = node.transfers()
        always = NIGHT.model_copy(update={"window": None, "zone": None})
        outside.now = NOON
        follower.apply()
        assert node.transfer(view.id).awaits_window
        follower.change(machine.settings.model_copy(update={"follow": (always,)}))
        await follower.look()
        assert not node.transfer(view.id).awaits_window
        follower.change(machine.settings.model_copy(update={"follow": ()}))
        await follower.look()
        assert node.transfers() == ()


async def test_a_part_is_served_to_others(machine: Machine, outside: Outside) -> None:
    part = NIGHT.model_copy(update={"include": ("nested/*",), "window": None, "zone": None})
    machine.use(follow=(part,))
    seeder = await machine.seeder()
    async with machine.running() as node:
        follower = outside.follower(node)
        await follower.look()
        [view] = node.transfers()
        await until_state(node, view.id, "seeding")
        assert set(machine.published()) == {"nested/other.bin"}
        await seeder.torrents[machine.swarm.metainfo.info_hash].remove()
        late = await machine.stack.enter_async_context(machine.swarm.engine("127.0.0.3"))
        index = [file.path for file in machine.swarm.metainfo.manifest.files].index("nested/other.bin")
        cache = machine.swarm.cache("late")
        async with machine.swarm.transfer(late, cache=cache, files=frozenset({index})) as transfer:
            await transfer.download()
        assert machine.swarm.published(cache) == {"nested/other.bin": CONTENTS["nested/other.bin"]}


async def test_a_pattern_follows_what_a_coordinator_has(machine: Machine) -> None:
    await machine.seeder()
    async with catalog_of(machine.swarm.metainfo, "release-1", "main") as url:
        machine.use(
            coordinators=(url,), follow=(FollowSettings(repo="org/*", revision="release-*", include=("*.json",)),)
        )
        async with machine.running() as node:
            follower = Follower(node)
            await follower.look()
            [view] = node.transfers()
            assert (view.commit, view.revisions) == (machine.swarm.snapshot.commit, ("release-1",))
            [shown] = follower.views()
            assert [(each.repo, each.revision) for each in shown.snapshots] == [("org/model", "release-1")]


async def test_its_loop_looks_and_ends_with_its_task(machine: Machine, outside: Outside) -> None:
    await machine.seeder()
    async with machine.running() as node:
        running = asyncio.create_task(outside.follower(node).run())
        while not node.transfers():
            await node.version.beyond(node.version.value, timeout=1)
        await until_state(node, node.transfers()[0].id, "seeding")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert len(outside.asked) == 1
