"""A node keeps its cache within the budget, and never removes the last copy of a swarm."""

import asyncio
from collections.abc import Iterable

import pytest

from p2pmodel.config.sections.daemon import StoreSettings
from p2pmodel.core.progress.views import TransferView
from p2pmodel.node.node import Node
from p2pmodel.node.snapshot_readers import SnapshotKey
from p2pmodel.node.space_keeper import SpaceKeeper, SpaceSurveyor
from p2pmodel.store.cache import HubCache
from p2pmodel.store.space.plan import SpaceRules
from p2pmodel.store.space.usage import pin
from tests.support.eventually import PATIENCE
from tests.support.node_machine import Machine, machine, torrent, until_state

__all__ = ["machine"]

RULES = SpaceRules(budget=1)


class CountedCopies(SpaceSurveyor):
    """Finds as many other copies as `answers` say, one after another; the last answer stays."""

    answers: list[int]
    serving: list[bool]

    async def copies(self, transfers: Iterable[TransferView]) -> dict[SnapshotKey, int]:
        self.serving.append(any(view.state == "seeding" for view in transfers))
        count = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return {(repo, commit): count for repo in self._cache.repos() for commit in self._cache.repo(repo).commits()}


def keeper(machine: Machine, node: Node, *answers: int) -> tuple[SpaceKeeper, CountedCopies]:
    settings = machine.settings.model_copy(update={"coordinators": ("http://127.0.0.1:9",)})
    surveyor = CountedCopies(node.context.cache, settings)
    surveyor.answers, surveyor.serving = list(answers), []
    return SpaceKeeper(node.context.cache, settings, node, log=machine.notes.append, surveyor=surveyor), surveyor


async def seeding(machine: Machine, node: Node) -> str:
    await machine.seeder()
    ident = (await node.start(torrent(machine.swarm))).id
    await until_state(node, ident, "seeding")
    return ident


async def test_a_snapshot_leaves_its_swarm_and_then_the_cache(machine: Machine) -> None:
    async with machine.running() as node:
        await seeding(machine, node)
        keeps, surveyor = keeper(machine, node, 1)
        [gone] = await keeps.prune(RULES)
        assert gone.freed > 0
        assert not node.transfers()
        assert machine.published() == {}
        assert surveyor.serving == [True, False]
        assert any("was above its budget" in note for note in machine.notes)
        view = keeps.view
        assert (view.removed, view.freed) == (1, gone.freed)
        assert view.used is not None


async def test_two_nodes_that_leave_at_once_do_not_lose_the_last_copy(machine: Machine) -> None:
    async with machine.running() as node:
        ident = await seeding(machine, node)
        before = machine.published()
        keeps, surveyor = keeper(machine, node, 1, 0)
        assert await keeps.prune(RULES) == ()
        assert surveyor.serving == [True, False]
        await until_state(node, ident, "seeding")
        assert machine.published() == before


@pytest.mark.parametrize("protected_by", ["pin", "reader", "engine"])
async def test_what_is_used_stays_in_its_swarm(machine: Machine, protected_by: str) -> None:
    async with machine.running() as node:
        ident = await seeding(machine, node)
        manifest = machine.swarm.metainfo.manifest
        keeps, surveyor = keeper(machine, node, 5)
        if protected_by == "pin":
            pin(HubCache(machine.settings.cache_dir).repo(manifest.repo), manifest.commit)
        elif protected_by == "engine":
            node.set_engine(ident, "loaded")
        with node.context.readers.reading(manifest.repo, manifest.commit if protected_by == "reader" else "0" * 40):
            assert await keeps.prune(RULES) == ()
        assert surveyor.serving == [True]
        assert node.transfer(ident).state == "seeding"
        assert any("above its budget" in note for note in machine.notes)


async def test_a_disk_that_cannot_be_read_does_not_end_the_node(machine: Machine) -> None:
    class Unreadable(CountedCopies):
        async def copies(self, transfers: Iterable[TransferView]) -> dict[SnapshotKey, int]:
            raise PermissionError(13, "Permission denied", "/data/hub")

    async with machine.running() as node:
        settings = machine.settings.model_copy(update={"store": StoreSettings(budget=1)})
        surveyor = Unreadable(node.context.cache, settings)
        keeps = SpaceKeeper(node.context.cache, settings, node, log=machine.notes.append, surveyor=surveyor)
        task = asyncio.create_task(keeps.run())
        async with asyncio.timeout(PATIENCE):
            while not any("/data/hub" in note for note in machine.notes):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
