"""Staging: names by content, records that survive a restart of the process, owners, and what is swept."""

import os
from pathlib import Path

import pytest

from p2pmodel.core.content.names import RepoId
from p2pmodel.core.files import private_files
from p2pmodel.errors import LocalResource
from p2pmodel.store import process_locks
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.files import range_set
from p2pmodel.store.files.range_set import RangeSet
from p2pmodel.store.staging import unfinished_commits
from tests.support.hub_snapshot import snapshot_of
from tests.support.stored import CONTENTS, stage

MANIFEST = snapshot_of(CONTENTS).manifest
OTHER = snapshot_of(CONTENTS | {"config.json": b"moved"}).manifest
SHARD = next(file for file in MANIFEST.files if file.path.endswith(".safetensors"))
CONFIG = next(file for file in MANIFEST.files if file.path == "config.json")
ROOT = "ab" * 32


@pytest.fixture
def repo(tmp_path: Path) -> RepoCache:
    return HubCache(tmp_path).repo(RepoId("org/model"))


def test_a_staged_file_has_the_name_of_its_content_whatever_the_commit(repo: RepoCache, tmp_path: Path) -> None:
    path = repo.staged.path_of(SHARD)
    assert path == repo.staged.paths_of(OTHER.files)[OTHER.files.index(SHARD)]
    assert path.parent.is_dir()
    assert path.resolve().is_relative_to(tmp_path / "models--org--model" / ".p2pmodel")
    assert not path.name.endswith(".incomplete"), "the hub prunes those"


def test_each_copy_of_a_content_in_a_snapshot_has_a_staged_file_of_its_own(repo: RepoCache) -> None:
    assert len(set(repo.staged.paths_of([SHARD, CONFIG, SHARD, SHARD]))) == 4
    assert repo.staged.paths_of([CONFIG, SHARD])[1] == repo.staged.paths_of([SHARD, SHARD])[0]


def test_ranges_are_restored_for_the_tree_that_checked_them(repo: RepoCache) -> None:
    path = repo.staged.path_of(SHARD)
    assert not list(repo.staged.checked(path, SHARD, ROOT))
    repo.staged.record_checked(path, SHARD, ROOT, RangeSet([(0, 10)]))
    assert not list(repo.staged.checked(path, SHARD, ROOT)), "there is no file"
    path.write_bytes(bytes(20))
    repo.staged.record_checked(path, SHARD, ROOT, RangeSet([(0, 10)]))
    assert list(repo.staged.checked(path, SHARD, ROOT)) == [(0, 10)]
    assert not list(repo.staged.checked(path, SHARD, "cd" * 32))
    path.write_bytes(bytes(5))
    assert not list(repo.staged.checked(path, SHARD, ROOT)), "the file is too short for them"


def test_after_a_new_start_of_the_machine_only_synced_ranges_count(
    repo: RepoCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = repo.staged.path_of(SHARD)
    path.write_bytes(bytes(SHARD.size))
    range_set.write_record(path, SHARD, RangeSet([(0, 100)]), RangeSet([(0, 50)]))
    repo.staged.record_checked(path, SHARD, ROOT, RangeSet([(20, 100)]))
    monkeypatch.setattr(range_set, "boot_id", lambda: "another boot")
    assert list(repo.staged.checked(path, SHARD, ROOT)) == [(20, 50)]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"done": 1}', b"\xff"])
def test_a_damaged_record_is_none(repo: RepoCache, damage: bytes) -> None:
    path = repo.staged.path_of(SHARD)
    path.write_bytes(bytes(100))
    repo.staged.record_checked(path, SHARD, ROOT, RangeSet([(0, 10)]))
    range_set.record_path(path).write_bytes(damage)
    assert not list(repo.staged.checked(path, SHARD, ROOT))


def test_a_content_has_one_owner(repo: RepoCache) -> None:
    first = repo.staged.claim([SHARD, CONFIG])
    assert first is not None
    assert first.contents == {SHARD.etag, CONFIG.etag}
    assert repo.staged.claim([CONFIG]) is None
    others = [file for file in MANIFEST.files if file not in (SHARD, CONFIG)]
    second = repo.staged.claim(others)
    assert second is not None
    assert repo.staged.claim(MANIFEST.files) is None
    first.release()
    first.release()
    third = repo.staged.claim([SHARD])
    assert third is not None
    for claimed in (second, third):
        claimed.release()


def test_another_process_has_all_contents_or_none(repo: RepoCache) -> None:
    # Another object has locks of its own, as another process has.
    other = HubCache(repo.cache.root).repo(repo.repo)
    claimed = repo.staged.claim([SHARD])
    assert claimed is not None
    assert other.staged.claim([CONFIG]) is None
    assert f"process {os.getpid()} on" in other.staged.claims.waits_for()
    assert repo.staged.claim([SHARD]) is None
    assert repo.staged.claims.waits_for() == "another download of this process"
    claimed.release()
    again = other.staged.claim([CONFIG])
    assert again is not None
    again.release()


def test_a_claim_after_a_machine_was_passed_over_says_so(repo: RepoCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_locks, "EXPIRES_AFTER", 0.0)
    record = repo.made_private / "locks" / "contents.holder.lock"
    record.parent.mkdir()
    record.write_text("12\nnode-07\n")
    claimed = repo.staged.claim([SHARD])
    assert claimed is not None
    assert str(claimed.passed_over) == "process 12 on node-07"
    path = stage(repo, MANIFEST, SHARD, b"part")
    before = path.stat().st_ino
    repo.staged.detach()
    assert (path.read_bytes(), path.stat().st_ino == before) == (b"part", False)
    claimed.release()


def test_no_claim_is_given_after_the_lock_was_lost(repo: RepoCache) -> None:
    claimed = repo.staged.claim([SHARD])
    assert claimed is not None
    assert claimed.lost is not None
    claimed.lost.set()
    assert repo.staged.claim([CONFIG]) is None
    claimed.release()
    again = repo.staged.claim([CONFIG])
    assert again is not None
    again.release()


def test_what_has_an_owner_is_not_removed(repo: RepoCache) -> None:
    path = stage(repo, MANIFEST, SHARD, b"x" * 4096)
    owned = repo.staged.claim([SHARD])
    assert owned is not None
    assert repo.staged.remove([SHARD.etag]) == 0
    assert path.exists()
    owned.release()
    assert repo.staged.remove([SHARD.etag]) >= 4096
    assert not path.exists()
    assert repo.staged.held() == {}


def test_a_begun_download_is_marked_with_its_names(repo: RepoCache) -> None:
    begun = repo.staging(MANIFEST.commit)
    assert begun.refs() is None
    begun.begin(MANIFEST, ["main"])
    assert (begun.refs(), unfinished_commits(repo.private)) == (("main",), [MANIFEST.commit])
    assert repo.manifest(MANIFEST.commit) == MANIFEST
    begun.forget()
    begun.forget()
    assert (begun.refs(), unfinished_commits(repo.private)) == (None, [])


def test_the_next_lock_sweeps_what_no_manifest_lists_and_the_old_layout(repo: RepoCache) -> None:
    listed = stage(repo, MANIFEST, SHARD, b"part")
    stray = repo.staged.path_of(next(file for file in OTHER.files if file.path == "config.json"))
    stray.write_bytes(b"part")
    lost = repo.staged.path_of(CONFIG).with_name(f"{CONFIG.etag}.part.ranges")
    lost.write_bytes(b"{}")
    old = repo.made_private / "staging" / MANIFEST.commit / "0-x.part"
    older = repo.made_private / "partial" / f"{SHARD.etag}.part"
    for path in (old, older):
        path.parent.mkdir()
        path.write_bytes(b"part")
    repo.staging(MANIFEST.commit).lock_path()
    assert listed.exists()
    for path in (stray, lost, old.parent, older.parent):
        assert not path.exists(), path


def test_the_sweep_leaves_what_is_being_downloaded(repo: RepoCache) -> None:
    stray = repo.staged.path_of(SHARD)
    stray.write_bytes(b"part")
    owned = repo.staged.claim([SHARD])
    assert owned is not None
    repo.staging(MANIFEST.commit).lock_path()
    assert stray.exists()
    owned.release()
    repo.staging(MANIFEST.commit).lock_path()
    assert not stray.exists()


def test_the_torrent_is_kept(repo: RepoCache) -> None:
    begun = repo.staging(MANIFEST.commit)
    assert begun.load_metainfo() is None
    begun.save_metainfo(b"d4:infod")
    assert begun.load_metainfo() == b"d4:infod"


def test_files_in_place_of_the_folder_are_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "models--org--model").mkdir()
    for name in (".p2pmodel", f".p2pmodel-{os.geteuid()}"):
        (tmp_path / "models--org--model" / name).write_text("oops")
    repo = HubCache(tmp_path).repo(RepoId("org/model"))
    for use in (
        lambda: repo.staged.path_of(SHARD),
        lambda: repo.staged.claim([SHARD]),
        lambda: repo.staging(MANIFEST.commit).begin(MANIFEST, []),
        lambda: repo.staging(MANIFEST.commit).save_metainfo(b""),
    ):
        with pytest.raises(LocalResource, match=r"/\.p2pmodel: Not a directory"):
            use()
    repo.staging(MANIFEST.commit).forget()
    assert repo.staging(MANIFEST.commit).load_metainfo() is None
    assert repo.staged.held() == {}


def test_what_killed_processes_left_is_removed_with_the_next_lock(
    repo: RepoCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    for after, stays in ((3600.0, True), (-1.0, False)):
        monkeypatch.setattr(private_files, "LEFTOVER_AFTER", after)
        repo.tmp.mkdir(exist_ok=True)
        left = repo.tmp / "123-abc"
        left.touch()
        beside = repo.staged.path_of(SHARD).with_name("123-def")
        beside.touch()
        repo.staging(MANIFEST.commit).lock_path()
        assert (left.exists(), beside.exists()) == (stays, stays)
