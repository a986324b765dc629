"""The registry of roll-outs: one open roll-out for the same terms, and what survives a restart."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from p2pmodel.coordinator.rollout.nodes import NodeBytes, NodeReport
from p2pmodel.coordinator.rollout.rollout import RolloutSpec
from p2pmodel.coordinator.server.credentials import ADMINISTRATOR, Caller, Rights
from p2pmodel.coordinator.server.rollouts import registry
from p2pmodel.coordinator.server.rollouts.folder import RolloutFolder
from p2pmodel.coordinator.server.rollouts.registry import Rollouts
from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import Forbidden, LocalResource, NotFound, TooManyRequests
from tests.support.eventually import PATIENCE, eventually

REPO, COMMIT = RepoId("org/model"), "c" * 40
TEAM, OTHER = Caller(Rights.PUBLISHER, "team"), Caller(Rights.PUBLISHER, "other")
ADMIN = Caller(Rights.ADMINISTRATOR, ADMINISTRATOR)
READY, LOADING = NodeReport("files_ready"), NodeReport("downloading")


def spec(*nodes: str, commit: str = COMMIT, deadline: float = 3600.0) -> RolloutSpec:
    return RolloutSpec(REPO, commit, nodes, deadline=deadline)


@asynccontextmanager
async def running(rollouts: Rollouts) -> AsyncIterator[Rollouts]:
    task = asyncio.create_task(rollouts.run())
    try:
        yield rollouts
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def restarted(folder: Path) -> Rollouts:
    rollouts = Rollouts(RolloutFolder(folder))
    assert await rollouts.load() == ()
    return rollouts


async def test_the_same_terms_give_the_open_rollout() -> None:
    rollouts = Rollouts()
    first, new = await rollouts.create(spec("a", "b"), TEAM)
    again, newer = await rollouts.create(spec("b", "a"), TEAM)
    assert (first.id, new, newer) == (again.id, True, False)
    assert (await rollouts.create(spec("a"), TEAM))[0].id != first.id
    await rollouts.end(first.id, TEAM)
    assert (await rollouts.create(spec("a", "b"), TEAM))[1]


async def test_another_publisher_neither_ends_nor_extends_it() -> None:
    rollouts = Rollouts()
    view, _ = await rollouts.create(spec("a"), TEAM)
    with pytest.raises(Forbidden):
        await rollouts.end(view.id, OTHER)
    with pytest.raises(Forbidden):
        await rollouts.create(spec("a"), OTHER)
    assert (await rollouts.end(view.id, ADMIN)).state == "ended"


async def test_a_report_goes_to_the_rollouts_that_list_the_node_else_to_all() -> None:
    rollouts = Rollouts()
    one, _ = await rollouts.create(spec("a"), TEAM)
    two, _ = await rollouts.create(spec("b"), TEAM)
    assert await rollouts.report("a", REPO, COMMIT, LOADING) == (one.id,)
    assert set(await rollouts.report("x", REPO, COMMIT, LOADING)) == {one.id, two.id}
    assert [node.name for node in rollouts.view(two.id).nodes] == ["b", "x"]
    assert await rollouts.report("a", REPO, "d" * 40, LOADING) == ()


async def test_numbers_with_a_demand_reach_the_rollout() -> None:
    rollouts = Rollouts()
    view, _ = await rollouts.create(spec("a"), TEAM)
    rollouts.numbers("a", REPO, COMMIT, NodeReport("downloading", total=10, bytes=NodeBytes(peers=4)))
    assert rollouts.view(view.id).nodes[0].share == 0.4


async def test_an_answered_report_outlives_a_kill(tmp_path: Path) -> None:
    async with running(await restarted(tmp_path / "r")) as rollouts:
        view, _ = await rollouts.create(spec("a", "b"), TEAM)
        await rollouts.report("a", REPO, COMMIT, READY)
    # Nothing is written after the answer: `close` is not called.
    async with running(await restarted(tmp_path / "r")) as rollouts:
        assert rollouts.view(view.id).nodes[0].ready("files")
        await rollouts.report("b", REPO, COMMIT, READY)
        assert rollouts.view(view.id).state == "complete"
    assert (await restarted(tmp_path / "r")).view(view.id).state == "complete"
    assert not (await restarted(tmp_path / "r")).is_open(REPO, COMMIT)


async def test_numbers_are_written_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "SAVE_EVERY", 0.05)
    async with running(await restarted(tmp_path / "r")) as rollouts:
        view, _ = await rollouts.create(spec("a"), TEAM)
        rollouts.numbers("a", REPO, COMMIT, NodeReport("downloading", total=10, bytes=NodeBytes(peers=4)))

        def written() -> bool:
            return RolloutFolder(tmp_path / "r").load().views[0].nodes[0].bytes.peers == 4

        await eventually(written, what="the numbers on disk")
    assert rollouts.view(view.id).open


async def test_a_deadline_ends_it_without_any_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "SAVE_EVERY", 0.05)
    async with running(Rollouts()) as rollouts:
        view, _ = await rollouts.create(spec("a", deadline=1.0), TEAM)
        async with asyncio.timeout(PATIENCE):
            while rollouts.view(view.id).open:
                await rollouts.version.beyond(rollouts.version.value, timeout=None)
        assert rollouts.view(view.id).state == "late"
        assert not rollouts.is_open(REPO, COMMIT)


async def test_a_report_that_cannot_be_written_is_an_error_and_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "RETRY", 0.05)
    folder, lines = tmp_path / "r", []
    rollouts = Rollouts(RolloutFolder(folder), note=lines.append)
    await rollouts.load()
    async with running(rollouts):
        view, _ = await rollouts.create(spec("a"), TEAM)
        (folder / f"{view.id}.json").unlink()
        folder.rmdir()
        with pytest.raises(LocalResource):
            await rollouts.report("a", REPO, COMMIT, LOADING)
        folder.mkdir(mode=0o700)
        await eventually(lambda: len(RolloutFolder(folder).load().views) == 1, what="the file, once there is a folder")
    assert "cannot be saved" in str(lines[0])


async def test_a_damaged_file_is_named_and_left(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.mkdir(mode=0o700)
    (folder / "abcd1234.json").write_text('{"id": "abcd1234"')
    (note,) = await Rollouts(RolloutFolder(folder)).load()
    assert "abcd1234.json" in note
    assert (folder / "abcd1234.json").exists()


async def test_open_rollouts_are_bounded_and_old_ones_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "MAX_OPEN", 2)
    monkeypatch.setattr(registry, "MAX_KEPT", 1)
    async with running(await restarted(tmp_path / "r")) as rollouts:
        first, _ = await rollouts.create(spec("a"), TEAM)
        second, _ = await rollouts.create(spec("b"), TEAM)
        with pytest.raises(TooManyRequests):
            await rollouts.create(spec("c"), TEAM)
        await rollouts.end(first.id, TEAM)
        await rollouts.end(second.id, TEAM)
        await rollouts.create(spec("c"), TEAM)
        with pytest.raises(NotFound):
            rollouts.view(first.id)
        assert {view.state for view in rollouts.views()} == {"ended", "open"}
        assert not (tmp_path / "r" / f"{first.id}.json").exists()
