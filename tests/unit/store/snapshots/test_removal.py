"""Removing a snapshot deletes all of its files and no file of another."""

from pathlib import Path

import pytest

from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import NotFound
from p2pmodel.store.cache import HubCache
from p2pmodel.store.snapshots.removal import remove_snapshot
from p2pmodel.store.snapshots.snapshot_list import is_visible, snapshots
from tests.support.hub_snapshot import HubSnapshot, snapshot_of
from tests.support.stored import CONTENTS, move_to_shared_store, publish, stage

OLD = snapshot_of(CONTENTS)
NEW = snapshot_of(CONTENTS | {"config.json": b"changed", "new.bin": b"n" * 5000})


@pytest.fixture
def cache(tmp_path: Path) -> HubCache:
    return HubCache(tmp_path / "hub")


def contents(cache: HubCache, snapshot: HubSnapshot) -> dict[str, bytes]:
    folder = cache.repo(snapshot.manifest.repo).snapshot(snapshot.commit)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_only_snapshot_takes_the_repository_with_it(cache: HubCache):
    publish(cache, OLD)
    repo = cache.repo(OLD.manifest.repo)
    freed = remove_snapshot(repo, OLD.commit)
    assert freed >= sum(f.size for f in OLD.manifest.files)
    assert not repo.folder.exists()
    assert cache.repos() == []


def test_blobs_of_another_snapshot_stay(cache: HubCache):
    publish(cache, OLD, refs=("v1",))
    publish(cache, NEW, refs=("main",))
    repo = cache.repo(OLD.manifest.repo)
    remove_snapshot(repo, OLD.commit)
    assert contents(cache, NEW) == dict(NEW.contents)
    assert repo.refs() == {"main": NEW.commit}
    assert repo.commits() == [NEW.commit]
    assert {p.name for p in (repo.folder / "blobs").iterdir()} == {f.etag for f in NEW.manifest.files}
    assert repo.manifest(OLD.commit) is None


def test_a_blob_that_a_transfer_needs_stays(cache: HubCache):
    publish(cache, OLD)
    repo, needed = cache.repo(OLD.manifest.repo), OLD.file("model-00001.safetensors")
    remove_snapshot(repo, OLD.commit, {needed.etag})
    assert [p.name for p in (repo.folder / "blobs").iterdir()] == [needed.etag]
    assert repo.commits() == []


def test_staged_files_are_removed_too(cache: HubCache):
    repo, file = cache.repo(OLD.manifest.repo), OLD.manifest.files[0]
    stage(repo, OLD.manifest, file, b"part")
    assert remove_snapshot(repo, OLD.commit) > 0
    assert not repo.folder.exists()


def test_staged_files_of_other_snapshots_stay(cache: HubCache):
    publish(cache, OLD)
    repo = cache.repo(OLD.manifest.repo)
    staged = stage(repo, NEW.manifest, NEW.manifest.files[0], b"part")
    remove_snapshot(repo, OLD.commit)
    assert staged.read_bytes() == b"part"


def test_the_shared_store_is_not_touched(cache: HubCache):
    publish(cache, OLD)
    repo = cache.repo(OLD.manifest.repo)
    payload = move_to_shared_store(repo, OLD.file("model-00001.safetensors"))
    remove_snapshot(repo, OLD.commit)
    assert payload.read_bytes() == CONTENTS["model-00001.safetensors"]


def test_a_missing_snapshot_is_an_error(cache: HubCache):
    with pytest.raises(NotFound, match="is not in this cache"):
        remove_snapshot(cache.repo(RepoId("org/none")), "ab" * 20)


def test_the_list_contains_the_missing_files(cache: HubCache):
    assert list(snapshots(cache)) == []
    publish(cache, OLD, refs=("main", "v1"))
    publish(cache, NEW, paths=["new.bin"], refs=())
    found = {held.commit: held for held in snapshots(cache)}
    assert found[OLD.commit].refs == ("main", "v1")
    assert found[OLD.commit].missing == ()
    assert found[NEW.commit].refs == ()
    assert [file.path for file in found[NEW.commit].missing] == ["config.json"]


def test_a_snapshot_is_visible_if_its_files_can_be_opened(cache: HubCache):
    publish(cache, OLD)
    repo = cache.repo(OLD.manifest.repo)
    assert is_visible(repo, OLD.commit, OLD.manifest.files)
    (repo.snapshot(OLD.commit) / "config.json").unlink()
    assert not is_visible(repo, OLD.commit, OLD.manifest.files)
    assert is_visible(repo, OLD.commit, [OLD.file("model-00001.safetensors")])
    repo.blob_path(OLD.file("model-00001.safetensors")).unlink()
    assert not is_visible(repo, OLD.commit, [OLD.file("model-00001.safetensors")])
