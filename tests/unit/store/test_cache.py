"""What the cache reads of its own folders and of those of other programs."""

import os
from pathlib import Path

import pytest

from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import InvalidInput, LocalResource
from p2pmodel.store.cache import HubCache
from p2pmodel.store.publish import publish_blob
from tests.support.hub_layout import write_snapshot
from tests.support.hub_snapshot import snapshot_of
from tests.support.stored import CONTENTS, move_to_shared_store, publish, stage

REPO = RepoId("org/model")


@pytest.fixture
def cache(tmp_path: Path) -> HubCache:
    return HubCache(tmp_path / "hub")


def test_a_cache_that_does_not_exist_is_empty_and_stays_absent(cache: HubCache) -> None:
    repo = cache.repo(REPO)
    assert cache.repos() == []
    assert repo.refs() == {}
    assert repo.commits() == []
    assert repo.resolve("main") is None
    assert repo.resolve("1" * 40) is None
    assert repo.manifest("1" * 40) is None
    assert not cache.root.exists()


def test_refs_and_commits_resolve(cache: HubCache) -> None:
    manifest = publish(cache, refs=["main", "refs/pr/1", "v1.0"])
    repo = cache.repo(REPO)
    assert repo.refs() == dict.fromkeys(["main", "refs/pr/1", "v1.0"], manifest.commit)
    assert repo.commits() == [manifest.commit]
    assert cache.repos() == [REPO]
    for revision in ("main", "refs/pr/1", "v1.0", manifest.commit):
        assert repo.resolve(revision) == manifest.commit
    assert repo.resolve("refs") is None
    assert repo.resolve("main/x") is None
    with pytest.raises(InvalidInput):
        repo.resolve("../../etc/passwd")


def test_the_same_repository_is_the_same_object(cache: HubCache) -> None:
    assert cache.repo(REPO) is cache.repo(RepoId("org/model"))


def test_a_relative_root_with_a_tilde_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert HubCache(Path("~/hub")).root == tmp_path / "hub"
    monkeypatch.chdir(tmp_path)
    assert HubCache(Path("hub")).root == tmp_path / "hub"


def test_strange_names_on_disk_do_not_break_listings(cache: HubCache) -> None:
    manifest = publish(cache)
    repo = cache.repo(REPO)
    for name in (
        "models--a--b--c",
        "datasets--org--x",
        "models--",
        "models--bad name",
        "version.txt.d",
        "models--snapshots--file",
        "models--no--snap",
    ):
        (cache.root / name).mkdir()
    (cache.root / "models--snapshots--file" / "snapshots").write_text("a file")
    (cache.root / "models--org--file").write_text("a file, not a folder of a repository")
    Path(os.fsdecode(os.fsencode(cache.root) + b"/models--\xff\xfe")).mkdir()
    for name in ("not-a-commit", "é", "1" * 39):
        (repo.folder / "snapshots" / name).mkdir()
    (repo.folder / "snapshots" / ("2" * 40)).write_text("a file")
    (repo.folder / "refs" / "empty").write_bytes(b"")
    (repo.folder / "refs" / "binary").write_bytes(b"\xff" * 40)
    (repo.folder / "refs" / "newline").write_text(manifest.commit + "\n")
    (repo.folder / "refs" / "dangling").symlink_to("nowhere")
    assert cache.repos() == [REPO]
    assert repo.commits() == [manifest.commit]
    assert repo.refs() == {"main": manifest.commit, "newline": manifest.commit}


def test_a_file_in_the_place_of_a_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "hub").write_text("oops")
    with pytest.raises(LocalResource, match=r"not a directory at .*/hub"):
        HubCache(tmp_path / "hub").repos()


def test_a_blob_counts_only_with_its_right_size(cache: HubCache) -> None:
    manifest = publish(cache)
    repo = cache.repo(REPO)
    assert repo.missing(manifest.files) == []
    weights = manifest.file("model-00001.safetensors")
    assert weights is not None
    os.truncate(repo.blob_path(weights), weights.size - 1)
    assert repo.blob(weights) is None
    assert repo.missing(manifest.files) == [weights]
    repo.blob_path(weights).unlink()
    repo.blob_path(weights).mkdir()
    assert repo.blob(weights) is None


def test_a_blob_in_the_shared_store_is_found_at_its_real_path(cache: HubCache) -> None:
    manifest = publish(cache)
    repo = cache.repo(REPO)
    weights = manifest.files[2]
    payload = move_to_shared_store(repo, weights)
    assert repo.blob(weights) == payload
    payload.unlink()
    assert repo.blob(weights) is None
    loop = repo.blob_path(weights)
    loop.unlink()
    loop.symlink_to(loop.name)
    assert repo.blob(weights) is None


def test_snapshots_that_the_hub_wrote_are_read(cache: HubCache) -> None:
    manifest = write_snapshot(cache.root, "org/model", CONTENTS, refs=("main", "refs/pr/2"))
    repo = cache.repo(REPO)
    assert repo.resolve("refs/pr/2") == manifest.commit
    assert repo.manifest(manifest.commit) == manifest
    assert repo.missing(manifest.files) == []
    assert not any(repo.is_verified(f) for f in manifest.files)


def test_a_verified_blob_stays_verified_in_the_next_run_until_it_changes(cache: HubCache) -> None:
    snapshot = snapshot_of(CONTENTS)
    file = snapshot.file("model-00001.safetensors")
    repo = cache.repo(REPO)
    assert not repo.is_verified(file)
    repo.mark_verified([file])
    assert not repo.is_verified(file)
    publish_blob(repo, file, stage(repo, snapshot.manifest, file, CONTENTS[file.path]))
    again = HubCache(cache.root).repo(REPO)
    assert again.is_verified(file)
    again.forget_verified(file)
    assert not repo.is_verified(file)
    repo.mark_verified([file])
    assert again.is_verified(file)
    blob = repo.blob_path(file)
    os.utime(blob, ns=(0, blob.stat().st_mtime_ns + 1))
    assert not repo.is_verified(file)


def test_a_repository_is_found_in_another_spelling(cache: HubCache) -> None:
    assert cache.held(RepoId("ORG/Model")) is None
    assert cache.known(RepoId("ORG/Model")).repo == RepoId("ORG/Model")
    publish(cache, refs=["main"])
    held = cache.held(RepoId("ORG/Model"))
    assert held is cache.repo(REPO)
    (cache.root / "models--ORG--Model").mkdir()
    exact = cache.held(RepoId("ORG/Model"))
    assert exact is not None
    assert exact.repo == RepoId("ORG/Model"), "its own spelling counts first"
