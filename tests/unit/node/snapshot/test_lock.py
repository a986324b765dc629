"""Two fetches of one snapshot: the second reports that it waits, and then finds all files."""

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.config.settings import Settings
from p2pmodel.errors import LocalResource, NoSpace, Unavailable
from p2pmodel.node.fetch.fetch import Fetch
from p2pmodel.node.fetch.request import FetchRequest, FetchResult
from p2pmodel.node.snapshot import lock
from p2pmodel.node.snapshot.lock import downloading, one_at_a_time, owning
from p2pmodel.node.snapshot.target import parse_target
from p2pmodel.store import process_locks
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.process_locks import host_name
from p2pmodel.store.publish import publish_blob
from tests.support.eventually import PATIENCE, eventually
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_swarm import CONTENTS, Heard, assert_nothing_runs
from tests.support.stored import stage

COMMIT = "c" * 40
OLD = snapshot_of(CONTENTS | {"README.md": b"old"}).manifest
NEW = snapshot_of(CONTENTS | {"README.md": b"new"}).manifest
WEIGHTS = [file for file in OLD.files if file.path != "README.md"]

HOLDER = """
import asyncio, sys
from pathlib import Path
from p2pmodel.core.content.names import RepoId
from p2pmodel.node.snapshot.lock import one_at_a_time
from p2pmodel.node.reporter import Reporter
from p2pmodel.store.cache import HubCache

async def main():
    repo = HubCache(Path(sys.argv[1])).repo(RepoId("org/model"))
    async with one_at_a_time(repo, sys.argv[2], Reporter()):
        print("held", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "RETRY", 0.01)


@pytest.fixture
def repo(tmp_path: Path) -> RepoCache:
    return HubCache(tmp_path / "hub").repo(snapshot_of(CONTENTS).manifest.repo)


async def test_the_second_task_waits_and_reports_it_once(repo: RepoCache) -> None:
    first, second = Heard(), Heard()
    order: list[str] = []

    async def other() -> None:
        async with one_at_a_time(repo, COMMIT, second.reporter):
            order.append("second")

    async with one_at_a_time(repo, COMMIT, first.reporter):
        waiting = asyncio.create_task(other())
        await eventually(lambda: second.latest is not None, what="the second reports")
        await asyncio.sleep(0.05)
        order.append("first")
    await waiting
    assert order == ["first", "second"]
    holder = f"process {os.getpid()} on {host_name()}"
    path = repo.folder / ".p2pmodel" / "locks" / f"{COMMIT}.lock"
    assert second.notes == [f"waiting for {path}, held by {holder}: it works on org/model, too"]
    assert second.latest is not None
    assert second.latest.waiting_for == holder
    assert first.notes == []


async def test_other_commits_do_not_wait(repo: RepoCache) -> None:
    heard = Heard()
    async with one_at_a_time(repo, COMMIT, heard.reporter), one_at_a_time(repo, "d" * 40, heard.reporter):
        assert heard.notes == []


async def test_a_cancelled_wait_leaves_the_lock_alone(repo: RepoCache) -> None:
    async def wait() -> None:
        async with one_at_a_time(repo, COMMIT, Heard().reporter):
            raise AssertionError("the lock was taken")

    async with one_at_a_time(repo, COMMIT, Heard().reporter):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wait(), 0.05)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wait(), 0.05)
    async with one_at_a_time(repo, COMMIT, Heard().reporter):
        pass
    await assert_nothing_runs()


async def test_a_killed_holder_gives_the_lock_up(repo: RepoCache) -> None:
    heard = Heard()

    async def wait() -> None:
        async with one_at_a_time(repo, COMMIT, heard.reporter):
            pass

    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, str(repo.cache.root), COMMIT, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert await holder.stdout.readline() == b"held\n"
        waiting = asyncio.create_task(wait())
        await eventually(lambda: bool(heard.notes), what="the second process says that it waits")
        assert not waiting.done()
    finally:
        holder.kill()
        await holder.wait()
    await asyncio.wait_for(waiting, PATIENCE)


async def test_a_wait_has_an_end_with_a_typed_error(repo: RepoCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.05)
    async with one_at_a_time(repo, COMMIT, Heard().reporter):
        with pytest.raises(Unavailable, match=f"process {os.getpid()} on .* has held .*{COMMIT}.lock for"):
            async with one_at_a_time(repo, COMMIT, Heard().reporter):
                raise AssertionError("the lock was taken")


def foreign(repo: RepoCache) -> Path:
    record = repo.staging(COMMIT).lock_path().with_name(f"{COMMIT}.holder.lock")
    record.write_text("17\nnode-07\nanother-kernel 1 2\nf00d\n")
    return record


async def test_the_staged_files_of_a_machine_that_was_passed_over_are_copied(
    repo: RepoCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_locks, "EXPIRES_AFTER", 0.05)
    foreign(repo).rename(repo.made_private / "locks" / "contents.holder.lock")
    heard = Heard()
    staged = repo.staged.path_of(WEIGHTS[0])
    repo.staged.list(OLD)
    with staged.open("wb") as theirs:
        theirs.truncate(1 << 20)
        theirs.seek(1 << 19)
        theirs.write(b"right")
        theirs.flush()
        async with downloading(repo, OLD, WEIGHTS[:1], [], heard.reporter):
            theirs.seek(0)
            theirs.write(b"late and wrong")
            theirs.flush()
            found = staged.read_bytes()
    assert (len(found), found.strip(b"\0")) == (1 << 20, b"right")
    assert staged.stat().st_blocks * 512 < 1 << 20
    assert "held by process 17 on node-07" in heard.notes[0]
    assert "process 17 on node-07 has given no sign of life" in heard.notes[1]


async def test_a_process_that_was_passed_over_stops(repo: RepoCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_locks, "RENEW_EVERY", 0.01)
    monkeypatch.setattr(lock, "LOOK_EVERY", 0.01)

    async def work() -> None:
        async with one_at_a_time(repo, COMMIT, Heard().reporter):
            foreign(repo)
            await asyncio.sleep(PATIENCE)

    with pytest.raises(Unavailable, match=r"another machine has taken .* while this process stood still"):
        await work()


async def test_a_folder_that_cannot_be_made_is_named(repo: RepoCache) -> None:
    repo.folder.mkdir(parents=True)
    for name in (".p2pmodel", f".p2pmodel-{os.geteuid()}"):
        (repo.folder / name).write_text("a file")
    with pytest.raises(LocalResource, match=r"\.p2pmodel"):
        async with one_at_a_time(repo, COMMIT, Heard().reporter):
            pass


async def test_two_fetches_download_once(tmp_path: Path) -> None:
    snapshot = snapshot_of(CONTENTS)
    heard = [Heard(), Heard()]
    fetched: list[FetchResult] = []
    async with FakeHub(snapshot, faults=["slow:3000000"]) as hub:
        settings = Settings(
            cache_dir=tmp_path / "hub",
            mirrors=(MirrorSettings(name="m", endpoint=hub.url),),
            origin=OriginSettings(patience=1),
        )
        request = FetchRequest(parse_target("org/model"))
        await asyncio.gather(*(Fetch(request, settings, h.reporter).run(fetched.append) for h in heard))
        distinct = {file.etag: file.size for file in snapshot.manifest.files}
        assert hub.sent == sum(distinct.values())
    first, second = fetched
    assert first.path == second.path
    assert first.progress.from_mirrors == sum(distinct.values())
    assert second.progress.from_cache == second.progress.total == snapshot.manifest.total_size
    assert sorted(len(h.notes) for h in heard) == [0, 1]


async def test_a_snapshot_waits_while_another_downloads_its_contents(repo: RepoCache) -> None:
    heard, order = Heard(), list[str]()

    async def other() -> None:
        async with downloading(repo, NEW, NEW.files, ["main"], heard.reporter):
            order.append("second")

    async with downloading(repo, OLD, OLD.files, ["main"], Heard().reporter):
        waiting = asyncio.create_task(other())
        await eventually(lambda: bool(heard.notes), what="the second says that it waits")
        order.append("first")
    await waiting
    assert order == ["first", "second"]
    assert heard.notes == ["waiting for another download of this process: it downloads org/model, too"]
    assert heard.latest is not None
    assert heard.latest.waiting_for == "another download of the same files"
    await assert_nothing_runs()


async def test_a_snapshot_does_not_wait_for_contents_that_it_lacks_not(repo: RepoCache) -> None:
    readme = next(file for file in NEW.files if file.path == "README.md")
    heard = Heard()
    async with (
        downloading(repo, OLD, WEIGHTS, [], heard.reporter),
        downloading(repo, NEW, [readme], [], heard.reporter),
    ):
        pass
    for file in WEIGHTS:
        publish_blob(repo, file, stage(repo, OLD, file, CONTENTS[file.path]))
    async with (
        downloading(repo, OLD, WEIGHTS, [], heard.reporter),
        downloading(repo, NEW, NEW.files, [], heard.reporter),
    ):
        pass
    assert heard.notes == []


async def test_both_locks_of_a_machine_that_has_ended_expire_together(
    repo: RepoCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_locks, "EXPIRES_AFTER", 1.0)
    monkeypatch.setattr(lock, "RETRY", 0.05)
    for path in (repo.staging(OLD.commit).lock_path(), repo.staged.claims.path):
        path.with_name(f"{path.stem}.holder.lock").write_text("17\nnode-07\nanother-kernel 1 2\nf00d\n")
    heard = Heard()
    async with downloading(repo, OLD, WEIGHTS, [], heard.reporter):
        pass
    assert [note.partition(" ")[0] for note in heard.notes] == ["waiting", "process", "process"]


async def test_a_process_that_was_passed_over_publishes_nothing(repo: RepoCache) -> None:
    """It stood still between its last look at the lock and the rename; another machine has staged other bytes since."""

    async def work() -> None:
        async with downloading(repo, OLD, WEIGHTS, [], Heard().reporter):
            staged = stage(repo, OLD, WEIGHTS[0], b"x" * WEIGHTS[0].size)
            repo.staged.claims.path.with_name("contents.holder.lock").write_text("17\nnode-07\n")
            await asyncio.to_thread(publish_blob, repo, WEIGHTS[0], staged)

    with pytest.raises(Unavailable, match="while this process stood still"):
        await work()
    assert not repo.blob_path(WEIGHTS[0]).exists()


async def test_the_mark_of_a_download_goes_with_its_end_alone(repo: RepoCache) -> None:
    with suppress(NoSpace):
        async with downloading(repo, OLD, WEIGHTS[:1], ["main"], Heard().reporter):
            stage(repo, OLD, WEIGHTS[0], b"a part")
            raise NoSpace("the disk is full")
    assert repo.staging(OLD.commit).refs() == ("main",)
    assert repo.staged.held().keys() == {WEIGHTS[0].etag}
    async with downloading(repo, OLD, WEIGHTS[:1], ["main"], Heard().reporter):
        staged = stage(repo, OLD, WEIGHTS[0], CONTENTS[WEIGHTS[0].path])
        copy = staged.with_name(f"{WEIGHTS[0].etag}.1.part")
        copy.write_bytes(b"a part")
        publish_blob(repo, WEIGHTS[0], staged)
    assert repo.staging(OLD.commit).refs() is None
    assert not copy.exists()


async def test_one_file_of_another_owner_is_waited_for_with_a_bound(repo: RepoCache) -> None:
    async with owning(repo, WEIGHTS[0], patience=0):
        with pytest.raises(Unavailable, match="another download of"):
            async with owning(repo, WEIGHTS[0], patience=0.05):
                pass
        async with owning(repo, WEIGHTS[-1], patience=0):
            pass
