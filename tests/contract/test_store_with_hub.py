"""The installed huggingface_hub reads what the store publishes, and the store what the hub writes."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import (
    get_cached_repo_tree,
    hf_hub_download,
    scan_cache_dir,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub._tree_cache import read_tree_cache
from huggingface_hub.errors import IncompleteSnapshotError, LocalEntryNotFoundError
from huggingface_hub.file_download import repo_folder_name

from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference, RepoId
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.files.range_set import RangeSet
from p2pmodel.store.importer import import_directory
from p2pmodel.store.manifests import tree_json
from p2pmodel.store.verify import verify
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of
from tests.support.stored import CONTENTS, move_to_shared_store, publish

NAME = "org/model"


@pytest.fixture
def cache(tmp_path: Path) -> HubCache:
    return HubCache(tmp_path / "hub")


@pytest.fixture
def repo(cache: HubCache) -> RepoCache:
    return cache.repo(RepoId(NAME))


def offline(cache: HubCache, *command: str) -> str:
    """Run a program as a user would on a machine without network, with this cache."""
    environ = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache.root), "HF_HUB_DISABLE_TELEMETRY": "1"}
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout


def listed(cache: HubCache, *options: str) -> list[dict[str, Any]]:
    hf = str(Path(sys.executable).with_name("hf"))
    entries: list[dict[str, Any]] = json.loads(offline(cache, hf, "cache", "ls", "--json", *options))
    return entries


def test_the_whole_snapshot_is_taken_for_downloaded(cache: HubCache, repo: RepoCache) -> None:
    manifest = publish(cache, refs=["main", "refs/pr/1"])
    for revision in ("main", "refs/pr/1", manifest.commit):
        path = snapshot_download(NAME, revision=revision, cache_dir=cache.root, local_files_only=True)
        assert Path(path) == repo.snapshot(manifest.commit)
    for name, data in CONTENTS.items():
        found = try_to_load_from_cache(NAME, name, cache_dir=cache.root)
        assert isinstance(found, str)
        assert Path(found).read_bytes() == data
        assert hf_hub_download(NAME, name, cache_dir=cache.root, local_files_only=True) == found
    assert try_to_load_from_cache(NAME, "absent.json", cache_dir=cache.root) is None


def test_an_offline_process_finds_it_by_environment_alone(cache: HubCache, repo: RepoCache) -> None:
    manifest = publish(cache)
    program = f"import huggingface_hub as h; print(h.snapshot_download({NAME!r}))"
    assert offline(cache, sys.executable, "-c", program).strip() == str(repo.snapshot(manifest.commit))


def test_scanning_finds_no_fault(cache: HubCache, repo: RepoCache) -> None:
    first = publish(cache, refs=["main"])
    second = publish(cache, snapshot_of(CONTENTS | {"config.json": b"{}"}), refs=["v2", "refs/pr/1"])
    found = scan_cache_dir(cache.root)
    assert found.warnings == []
    assert found.incomplete_files == frozenset()
    [held] = found.repos
    assert (held.repo_id, held.repo_type, held.repo_path) == (NAME, "model", repo.folder)
    revisions = {r.commit_hash: r for r in held.revisions}
    assert set(revisions) == {first.commit, second.commit}
    assert revisions[first.commit].refs == {"main"}
    assert revisions[second.commit].refs == {"v2", "refs/pr/1"}
    assert revisions[first.commit].size_on_disk == first.total_size
    paths = {str(f.file_path.relative_to(repo.snapshot(first.commit))) for f in revisions[first.commit].files}
    assert paths == set(CONTENTS)
    distinct = {f.etag: f.size for m in (first, second) for f in m.files}
    assert found.size_on_disk == sum(distinct.values())


def test_the_command_line_lists_it(cache: HubCache) -> None:
    manifest = publish(cache, refs=["main"])
    [entry] = listed(cache)
    assert NAME in entry["id"]
    [revision] = listed(cache, "--revisions")
    assert manifest.commit in json.dumps(revision)
    assert "main" in json.dumps(revision)


def test_a_part_of_a_snapshot_is_reported_as_incomplete(cache: HubCache, repo: RepoCache) -> None:
    manifest = publish(cache, paths=["config.json"])
    with pytest.raises(IncompleteSnapshotError, match=r"3 file\(s\) are missing"):
        snapshot_download(NAME, cache_dir=cache.root, local_files_only=True)
    path = snapshot_download(NAME, cache_dir=cache.root, local_files_only=True, allow_patterns=["*.json"])
    assert Path(path) == repo.snapshot(manifest.commit)
    assert scan_cache_dir(cache.root).warnings == []
    publish(cache)
    assert snapshot_download(NAME, cache_dir=cache.root, local_files_only=True) == path


def test_an_incomplete_snapshot_is_invisible_to_the_hub_library(cache: HubCache, repo: RepoCache) -> None:
    publish(cache)
    upcoming = snapshot_of({"next.bin": b"n" * 1000}).manifest
    repo.staging(upcoming.commit).begin(upcoming, ["main"])
    staged = repo.staged.path_of(upcoming.files[0])
    staged.write_bytes(b"half")
    repo.staged.record_checked(staged, upcoming.files[0], "ab" * 32, RangeSet([(0, 4)]))
    found = scan_cache_dir(cache.root)
    assert found.warnings == []
    assert found.incomplete_files == frozenset()
    assert len(next(iter(found.repos)).revisions) == 1
    with pytest.raises(LocalEntryNotFoundError):
        snapshot_download(NAME, revision=upcoming.commit, cache_dir=cache.root, local_files_only=True)


def test_the_hub_reads_the_hashes_of_every_file(cache: HubCache, repo: RepoCache) -> None:
    manifest = publish(cache)
    assert {f.path for f in get_cached_repo_tree(NAME, cache_dir=cache.root)} == set(CONTENTS)
    tree = read_tree_cache(str(repo.folder), manifest.commit)
    assert tree
    for file in manifest.files:
        entry = tree[file.path]
        assert (entry.size, entry.blob_id, entry.lfs_sha256) == (file.size, file.git_oid, file.sha256)


async def test_a_download_of_the_hub_library_is_used_unchanged(cache: HubCache, repo: RepoCache) -> None:
    snapshot = snapshot_of(CONTENTS)
    async with FakeHub(snapshot) as hub:
        options = {"endpoint": hub.url, "cache_dir": cache.root, "token": False, "max_workers": 1}
        path = await asyncio.to_thread(snapshot_download, NAME, **options)
    manifest = snapshot.manifest
    assert repo.snapshot(manifest.commit) == Path(path)
    assert repo.resolve("main") == manifest.commit
    assert repo.manifest(manifest.commit) == manifest
    assert verify(repo, manifest).whole
    before = tree_json(manifest)
    publish(cache)
    assert (repo.folder / "trees" / f"{manifest.commit}.json").read_bytes() == before
    shutil.rmtree(repo.folder / "trees")
    shutil.rmtree(repo.private.resolve())
    assert repo.manifest(manifest.commit) == manifest


def test_deleting_through_the_hub_leaves_no_files_behind(cache: HubCache, repo: RepoCache) -> None:
    first = publish(cache, snapshot_of({"a.bin": b"1" * 100, "same.txt": b"same"}))
    second = publish(cache, snapshot_of({"a.bin": b"2" * 100, "same.txt": b"same"}))
    scan_cache_dir(cache.root).delete_revisions(first.commit).execute()
    assert repo.commits() == [second.commit]
    assert repo.missing(second.files) == []
    assert len(repo.missing(first.files)) == 1
    scan_cache_dir(cache.root).delete_revisions(second.commit).execute()
    assert not repo.folder.exists()
    assert cache.repos() == []


def test_an_imported_directory_is_a_snapshot_to_the_hub(cache: HubCache, tmp_path: Path) -> None:
    for name, data in CONTENTS.items():
        (tmp_path / "plain" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "plain" / name).write_bytes(data)
    manifest = import_directory(cache, tmp_path / "plain", Reference.parse(f"{NAME}@v1"))
    path = snapshot_download(NAME, revision="v1", cache_dir=cache.root, local_files_only=True)
    assert Path(path).name == manifest.commit
    assert scan_cache_dir(cache.root).warnings == []


def test_blobs_in_the_hubs_shared_store_are_served_from_there(cache: HubCache, repo: RepoCache) -> None:
    manifest = publish(cache)
    payload = move_to_shared_store(repo, manifest.files[2])
    assert repo.blob(manifest.files[2]) == payload
    assert repo.missing(manifest.files) == []
    assert scan_cache_dir(cache.root).warnings == []
    assert publish(cache) == manifest
    assert repo.blob(manifest.files[2]) == payload


@pytest.mark.parametrize("name", ["gpt2", "org/model", "o-r.g/m_o.d-el", "A/B"])
def test_folders_are_where_the_hub_looks(cache: HubCache, name: str) -> None:
    assert cache.repo(RepoId(name)).folder == cache.root / repo_folder_name(repo_id=name, repo_type="model")


def test_a_repository_without_organisation_works_too(cache: HubCache) -> None:
    snapshot = snapshot_of({"config.json": b"{}"}, repo="gpt2")
    manifest: Manifest = publish(cache, snapshot)
    assert Path(snapshot_download("gpt2", cache_dir=cache.root, local_files_only=True)).name == manifest.commit
