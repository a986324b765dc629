"""Manifests: validation, the plain form and back, and their hashes compared with git."""

import json
import posixpath
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.utils import filter_repo_objects
from hypothesis import example, given
from hypothesis import strategies as st

from p2pmodel.core.content import manifest as module
from p2pmodel.core.content.manifest import (
    Manifest,
    ManifestFile,
    check_distinct,
    check_path,
    git_blob_hasher,
    lfs_pointer,
    lfs_pointer_oid,
    path_key,
)
from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import IntegrityError, P2PModelError

COMMIT = "1" * 40
OID = "a" * 40
SHA = "b" * 64
SEGMENT = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/\\\x7f"), min_size=1, max_size=8)
PATH = st.lists(SEGMENT.filter(lambda s: s not in (".", "..")), min_size=1, max_size=4).map("/".join)
FILE = st.builds(
    ManifestFile,
    PATH,
    st.integers(0, module.MAX_FILE_SIZE),
    st.from_regex(r"[0-9a-f]{40}", fullmatch=True),
    st.none() | st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
)


def files(*paths: str) -> tuple[ManifestFile, ...]:
    return tuple(ManifestFile(path, 1, OID) for path in paths)


@given(st.text(st.characters(), max_size=40) | st.text("a./\\\x00", max_size=12))
@example("a" * 256)
@example("/".join("a" * 33))
@example("a/" * 600 + "a")
def test_an_accepted_path_stays_inside_the_snapshot(path: str) -> None:
    try:
        check_path(path)
    except IntegrityError:
        return
    assert posixpath.normpath(path) == path
    assert not path.startswith(("/", "../"))
    assert all(len(s.encode()) <= 255 for s in path.split("/"))
    assert Path("/root", path).is_relative_to("/root")
    assert "\0" not in path


@given(PATH)
def test_ordinary_paths_of_any_script_are_accepted(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/etc/passwd",
        "..",
        "../x",
        "a/../b",
        "a/..",
        "./a",
        "a/./b",
        "a//b",
        "a/",
        "a\\b",
        "C:\\x",
        "a\nb",
        "a\x00",
        "a\x7f",
        "\ud800",
    ],
)
def test_unsafe_paths_are_refused(path: str) -> None:
    with pytest.raises(IntegrityError, match=r"is not (safe inside a snapshot|valid UTF-8)"):
        ManifestFile(path, 1, OID)


@pytest.mark.parametrize("paths", [["a", "a"], ["a", "a/b"], ["a/b/c", "a/b"], ["x/y/z", "x"]])
def test_two_files_in_one_place_are_refused(paths: list[str]) -> None:
    with pytest.raises(IntegrityError, match=r"occurs twice|both a file and a directory"):
        check_distinct(paths)
    with pytest.raises(IntegrityError):
        Manifest(RepoId("a/b"), COMMIT, files(*paths))


@pytest.mark.parametrize(
    ("size", "oid", "sha"),
    [
        (-1, OID, None),
        (module.MAX_FILE_SIZE + 1, OID, None),
        (1, "a" * 39, None),
        (1, OID.upper(), None),
        (1, OID, "b" * 63),
    ],
)
def test_impossible_sizes_and_hashes_are_refused(size: int, oid: str, sha: str | None) -> None:
    with pytest.raises(IntegrityError, match=r"impossible size|malformed hash"):
        ManifestFile("f", size, oid, sha)


def test_a_manifest_needs_a_commit_and_a_bounded_number_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(IntegrityError, match="is not a commit id"):
        Manifest(RepoId("a/b"), "main", ())
    monkeypatch.setattr(module, "MAX_FILES", 2)
    with pytest.raises(IntegrityError, match="has 3 files, more than 2"):
        Manifest(RepoId("a/b"), COMMIT, files("a", "b", "c"))


@given(st.lists(PATH, unique=True, max_size=8))
def test_canonical_order_is_that_of_the_file_tree(paths: list[str]) -> None:
    """BEP 52: a bencoded dictionary of names, directory by directory, each sorted by raw bytes."""
    try:
        manifest = Manifest(RepoId("a/b"), COMMIT, files(*paths))
    except IntegrityError:
        return

    def walk(tree: dict[bytes, Any], prefix: tuple[bytes, ...] = ()) -> list[tuple[bytes, ...]]:
        found = []
        for name in sorted(tree):
            found += walk(tree[name], (*prefix, name)) if tree[name] else [(*prefix, name)]
        return found

    tree: dict[bytes, Any] = {}
    for path in paths:
        node = tree
        for part in path.split("/"):
            node = node.setdefault(part.encode(), {})
    assert [path_key(f.path) for f in manifest.files] == walk(tree)


@given(st.lists(FILE, max_size=6, unique_by=lambda f: f.path), st.booleans())
def test_a_manifest_survives_its_plain_form(entries: list[ManifestFile], private: bool) -> None:
    try:
        manifest = Manifest(RepoId("org/name"), COMMIT, tuple(entries), private=private)
    except IntegrityError:
        return
    plain = json.loads(json.dumps(manifest.to_dict()))
    assert Manifest.from_dict(plain) == manifest
    assert ("private" in plain) == private
    assert manifest.total_size == sum(f.size for f in entries)
    for entry in entries:
        assert manifest.file(entry.path) == entry
    assert manifest.file("no/such/file") is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["repo", "commit", "files", "path", "size", "git_oid", "sha256"]), inner, max_size=5
        )
    ),
    max_leaves=12,
)


@given(JSON)
@example({"repo": "a/b", "commit": COMMIT, "files": [{"path": "a", "size": True, "git_oid": OID}]})
@example({"repo": "a/b", "commit": COMMIT, "files": [{"path": "a", "size": 1.0, "git_oid": OID}]})
@example({"repo": "a/b", "commit": COMMIT, "files": [{"path": b"a", "size": 1, "git_oid": OID}]})
@example({"repo": "a/b", "commit": COMMIT, "files": [{"path": "a", "size": 1, "git_oid": OID, "sha256": 7}]})
@example({"repo": "a/b", "commit": COMMIT, "files": "abc"})
def test_anything_malformed_is_one_of_our_errors(plain: Any) -> None:
    with pytest.raises(P2PModelError):
        Manifest.from_dict(plain)


PATTERN = st.text("ab*?./[]", min_size=1, max_size=6)


@given(
    st.lists(st.sampled_from(["a", "b/a", "b/b.a", "c/a/b", "c.b", "ab"]), unique=True),
    st.lists(PATTERN, max_size=2),
    st.lists(PATTERN, max_size=2),
)
def test_selections_are_those_of_the_hub(paths: list[str], include: list[str], exclude: list[str]) -> None:
    manifest = Manifest(RepoId("a/b"), COMMIT, files(*paths))
    expected = filter_repo_objects(
        [f.path for f in manifest.files], allow_patterns=include or None, ignore_patterns=exclude or None
    )
    assert [f.path for f in manifest.select(include, exclude)] == list(expected)


def test_the_etag_is_the_sha256_of_lfs_files_and_the_blob_id_of_others() -> None:
    assert ManifestFile("f", 1, OID, SHA).etag == SHA
    assert ManifestFile("f", 1, OID, SHA).is_lfs
    assert ManifestFile("f", 1, OID).etag == OID
    assert not ManifestFile("f", 1, OID).is_lfs


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.parametrize("content", [b"", b"hello\n", bytes(range(256)) * 40])
def test_blob_ids_are_those_of_git(content: bytes, tmp_path: Path) -> None:
    def git(data: bytes) -> str:
        command = ["git", "hash-object", "--stdin", "--no-filters"]
        return (
            subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True, cwd=tmp_path)
            .stdout.decode()
            .strip()
        )

    digest = git_blob_hasher(len(content))
    digest.update(content)
    assert digest.hexdigest() == git(content)
    assert lfs_pointer_oid(SHA, len(content)) == git(lfs_pointer(SHA, len(content)))


def test_the_lfs_pointer_is_that_of_the_specification() -> None:
    assert (
        lfs_pointer(SHA, 12345)
        == f"version https://git-lfs.github.com/spec/v1\noid sha256:{SHA}\nsize 12345\n".encode()
    )


def test_a_hasher_gives_the_etag() -> None:
    content = b"some content"
    digest = git_blob_hasher(len(content))
    digest.update(content)
    hasher = ManifestFile("f", len(content), digest.hexdigest()).hasher()
    hasher.update(content)
    assert hasher.hexdigest() == digest.hexdigest()
