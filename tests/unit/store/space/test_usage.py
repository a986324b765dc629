"""What snapshots take on the disk, their pins and their last use, and the readers that are seen."""

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.snapshots.removal import remove_snapshot
from p2pmodel.store.space.readers import open_inodes, serving_processes
from p2pmodel.store.space.usage import (
    disk_bytes,
    last_use,
    mark_used,
    measured,
    note_use,
    pin,
    pinned_commits,
    pins,
    unpin,
)
from tests.support.hub_snapshot import snapshot_of
from tests.support.stored import publish

OLD = snapshot_of({"same.bin": b"s" * 50_000, "old.bin": b"o" * 9000})
NEW = snapshot_of({"same.bin": b"s" * 50_000, "new.bin": b"n" * 70_000})


@pytest.fixture
def cache(tmp_path: Path) -> HubCache:
    return HubCache(tmp_path / "hub")


def repo_with_both(cache: HubCache) -> RepoCache:
    manifest = publish(cache, OLD, refs=("main",))
    publish(cache, NEW, refs=("next",))
    return cache.repo(manifest.repo)


def test_the_total_is_that_of_du(cache: HubCache) -> None:
    repo = repo_with_both(cache)
    os.link(repo.blob_path(OLD.manifest.files[0]), cache.root / "second name")
    answer = subprocess.run(["du", "-s", "--block-size=1", cache.root], check=True, capture_output=True, text=True)
    assert disk_bytes(cache.root) == measured(cache).total == int(answer.stdout.split()[0])


def test_a_removal_frees_what_the_usage_says(cache: HubCache) -> None:
    repo = repo_with_both(cache)
    usage = {each.commit: each for each in measured(cache).snapshots}
    old, new = usage[OLD.commit], usage[NEW.commit]
    assert (old.refs, new.refs) == (("main",), ("next",))
    own = sum(size for content, size in old.contents.items() if content not in new.contents)
    assert own > 0
    assert remove_snapshot(repo, OLD.commit) == own


def test_a_pinned_name_protects_the_commit_that_it_points_at(cache: HubCache) -> None:
    repo = repo_with_both(cache)
    pin(repo, "main")
    pin(repo, "refs/pr/1")
    assert pins(repo) == ("main", "refs/pr/1")
    assert pinned_commits(repo) == {OLD.commit}
    publish(cache, NEW, refs=("main",))
    assert pinned_commits(repo) == {NEW.commit}
    pin(repo, OLD.commit)
    assert pinned_commits(repo) == {OLD.commit, NEW.commit}
    assert [unpin(repo, name) for name in ("main", "main")] == [True, False]
    assert pinned_commits(repo) == {OLD.commit}


def test_the_last_use_is_recorded_and_goes_with_the_snapshot(cache: HubCache) -> None:
    repo = repo_with_both(cache)
    os.utime(repo.snapshot(OLD.commit), (5.0, 5.0))
    assert last_use(repo, OLD.commit) == 5.0
    mark_used(repo, OLD.commit)
    assert last_use(repo, OLD.commit) > 5.0
    assert last_use(repo, OLD.commit, clock=lambda: 7.0) == 7.0
    remove_snapshot(repo, OLD.commit)
    note_use(repo, OLD.commit)
    assert last_use(repo, OLD.commit) == 0.0


@pytest.mark.parametrize("how", ["open", "mapped"])
def test_a_process_that_reads_a_file_is_seen(cache: HubCache, how: str) -> None:
    repo = repo_with_both(cache)
    [new] = [each for each in measured(cache).snapshots if each.commit == NEW.commit]
    code = (
        "import mmap, sys; file = open(sys.argv[1], 'rb'); "
        "view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if sys.argv[2] == 'mapped' else None; "
        "view and file.close(); print('ready', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(repo.snapshot(NEW.commit) / "new.bin"), how]
    assert not new.inodes & open_inodes({os.getpid()})
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert new.inodes & open_inodes({os.getpid()})
        assert not new.inodes & open_inodes({os.getpid(), process.pid})
        process.communicate()


def test_own_files_do_not_count(cache: HubCache) -> None:
    repo = repo_with_both(cache)
    [new] = [each for each in measured(cache).snapshots if each.commit == NEW.commit]
    with (repo.snapshot(NEW.commit) / "new.bin").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ):
        assert new.inodes & open_inodes(())
        assert not new.inodes & open_inodes({os.getpid()})


def test_another_process_that_serves_a_repository_is_seen(cache: HubCache) -> None:
    repo = repo_with_both(cache)
    code = (
        "import sys; from pathlib import Path; from p2pmodel.store.cache import HubCache; "
        "from p2pmodel.core.content.names import RepoId; from p2pmodel.store.file_links import FileLinks; "
        "links = FileLinks(HubCache(Path(sys.argv[1])).repo(RepoId(sys.argv[2]))); "
        "print('ready', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(cache.root), str(repo.repo)]
    assert serving_processes(repo, {os.getpid()}) == []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert len(serving_processes(repo, {os.getpid()})) == 1
        assert serving_processes(repo, {os.getpid(), process.pid}) == []
        process.kill()
    assert serving_processes(repo, {os.getpid()}) == []
