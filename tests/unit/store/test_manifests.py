"""Sources of a snapshot's manifest; a damaged record counts as absent."""

import json
from pathlib import Path

import pytest
from huggingface_hub._tree_cache import TreeCacheEntry, write_tree_cache
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import RepoId
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.manifests import read_manifest, record_tree, tree_json
from tests.support.hub_layout import write_snapshot
from tests.support.hub_snapshot import snapshot_of
from tests.support.stored import CONTENTS, move_to_shared_store, publish

REPO = RepoId("org/model")


@pytest.fixture
def repo(tmp_path: Path) -> RepoCache:
    return HubCache(tmp_path / "hub").repo(REPO)


def record(repo: RepoCache, commit: str) -> Path:
    folder = repo.made_private / "manifests"
    folder.mkdir(exist_ok=True)
    return folder / f"{commit}.json"


def tree(repo: RepoCache, commit: str) -> Path:
    return repo.folder / "trees" / f"{commit}.json"


def test_only_our_record_contains_the_private_flag(repo: RepoCache) -> None:
    public = publish(repo.cache)
    private = Manifest(REPO, public.commit, public.files, private=True)
    record(repo, public.commit).write_text(json.dumps(private.to_dict()))
    assert repo.manifest(public.commit) == private


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"\xff\xfe",
        b"{}",
        b'{"repo": "org/model"}',
        b"[" * 100_000,
        b'{"files": 1, "format_version": 1}',
    ],
)
def test_a_damaged_record_falls_back_to_the_tree_and_then_to_the_links(repo: RepoCache, damage: bytes) -> None:
    manifest = publish(repo.cache)
    record(repo, manifest.commit).write_bytes(damage)
    assert repo.manifest(manifest.commit) == manifest
    tree(repo, manifest.commit).write_bytes(damage)
    assert repo.manifest(manifest.commit) == manifest


def test_a_record_of_another_snapshot_is_not_taken_for_this_one(repo: RepoCache) -> None:
    manifest = publish(repo.cache)
    other = snapshot_of({"other": b"1"}, repo="org/other").manifest
    record(repo, manifest.commit).write_text(json.dumps(other.to_dict()))
    assert repo.manifest(manifest.commit) == manifest


def test_without_a_record_the_links_give_the_manifest(repo: RepoCache) -> None:
    manifest = write_snapshot(repo.cache.root, "org/model", CONTENTS, tree=False)
    assert repo.manifest(manifest.commit) == manifest
    weights = next(f for f in manifest.files if f.is_lfs)
    move_to_shared_store(repo, weights)
    assert repo.manifest(manifest.commit) == manifest


def test_links_to_anything_but_blobs_are_ignored(repo: RepoCache) -> None:
    manifest = write_snapshot(repo.cache.root, "org/model", CONTENTS, tree=False)
    snapshot = repo.snapshot(manifest.commit)
    (snapshot / "notes.txt").write_text("put here by the user")
    (snapshot / "outside").symlink_to("/etc/hostname")
    (snapshot / "folder").symlink_to("..")
    (snapshot / "not-a-hash").symlink_to("../../blobs/abc")
    (snapshot / "elsewhere").symlink_to("../../other/" + "a" * 40)
    (snapshot / "bad\udcff\nname").symlink_to(f"../../blobs/{manifest.files[0].etag}")
    assert repo.manifest(manifest.commit) == manifest


def test_a_dangling_link_gives_no_manifest(repo: RepoCache) -> None:
    manifest = write_snapshot(repo.cache.root, "org/model", CONTENTS, tree=False)
    repo.blob_path(manifest.files[0]).unlink()
    assert repo.manifest(manifest.commit) is None


def test_an_empty_snapshot_gives_no_manifest(repo: RepoCache) -> None:
    repo.snapshot("1" * 40).mkdir(parents=True)
    assert repo.manifest("1" * 40) is None


def test_the_tree_equals_that_of_the_hub_byte_for_byte(tmp_path: Path) -> None:
    manifest = snapshot_of(CONTENTS).manifest
    entries = {
        f.path: TreeCacheEntry(f.size, f.git_oid, f.sha256, f.size if f.sha256 else None) for f in manifest.files
    }
    write_tree_cache(str(tmp_path), manifest.commit, entries)
    assert (tmp_path / "trees" / f"{manifest.commit}.json").read_bytes() == tree_json(manifest)


def test_a_tree_of_the_hub_with_xet_hashes_stays(repo: RepoCache, tmp_path: Path) -> None:
    manifest = snapshot_of(CONTENTS).manifest
    plain = json.loads(tree_json(manifest))
    plain["files"]["model-00001.safetensors"]["xet_hash"] = "c" * 64
    tree(repo, manifest.commit).parent.mkdir(parents=True)
    tree(repo, manifest.commit).write_text(json.dumps(plain))
    with repo.opened("trees") as trees:
        record_tree(trees, manifest, via=tmp_path)
    assert json.loads(tree(repo, manifest.commit).read_bytes()) == plain
    del plain["files"]["config.json"]
    tree(repo, manifest.commit).write_text(json.dumps(plain))
    with repo.opened("trees") as trees:
        record_tree(trees, manifest, via=tmp_path)
    assert tree(repo, manifest.commit).read_bytes() == tree_json(manifest)


def test_a_tree_of_a_newer_format_is_not_guessed_at(repo: RepoCache) -> None:
    manifest = write_snapshot(repo.cache.root, "org/model", {"a.bin": b"1"})
    plain = json.loads(tree(repo, manifest.commit).read_bytes())
    plain["format_version"] = 2
    plain["files"]["b.bin"] = plain["files"]["a.bin"]
    tree(repo, manifest.commit).write_text(json.dumps(plain))
    assert repo.manifest(manifest.commit) == manifest


KEY = st.sampled_from(["files", "size", "blob_id", "../x", "a"])
JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["files", "size", "blob_id", "../x", "a"]), inner)
    ),
    max_leaves=8,
)


@given(JSON)
def test_any_json_in_a_tree_is_harmless(tmp_path_factory: pytest.TempPathFactory, plain: object) -> None:
    folder = tmp_path_factory.mktemp("repo")
    (folder / "trees").mkdir()
    (folder / "trees" / f"{'1' * 40}.json").write_text(json.dumps({"format_version": 1, "files": plain}))
    found = read_manifest(REPO, folder, [folder / ".p2pmodel"], "1" * 40)
    assert found is None or not found.files
