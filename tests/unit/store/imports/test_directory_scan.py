"""Entries of a plain directory: followed, skipped, or refused in one line."""

import os
from pathlib import Path

import pytest

from p2pmodel.errors import IntegrityError, InvalidInput, P2PModelError
from p2pmodel.store.cache import HubCache
from p2pmodel.store.imports.directory_scan import scan_directory
from tests.support.stored import CONTENTS, move_to_shared_store, publish


def fill(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(os.fsencode(path))


def found(folder: Path) -> list[str]:
    return [f.path for f in scan_directory(folder)]


def test_every_file_is_found_in_order(tmp_path: Path) -> None:
    fill(tmp_path, "b", "a/z", "a/b c/größe.json", ".hidden", "poetry.lock", "a.b")
    (tmp_path / "empty").touch()
    (tmp_path / "no files in here").mkdir()
    assert found(tmp_path) == sorted([".hidden", "a.b", "a/b c/größe.json", "a/z", "b", "empty", "poetry.lock"])
    sizes = {f.path: f.size for f in scan_directory(tmp_path)}
    assert sizes["a/z"] == 3
    assert sizes["empty"] == 0


def test_files_without_content_are_ignored(tmp_path: Path) -> None:
    fill(
        tmp_path, "a", ".git/config", "sub/.git/HEAD", ".cache/huggingface/download/a.lock", "sub/.cache/huggingface/x"
    )
    fill(tmp_path, ".cache/other", "huggingface/x", ".gitattributes")
    (tmp_path / "worktree").mkdir()
    (tmp_path / "worktree" / ".git").write_text("gitdir: elsewhere")
    assert found(tmp_path) == [".cache/other", ".gitattributes", "a", "huggingface/x"]


def test_links_inside_are_followed(tmp_path: Path) -> None:
    fill(tmp_path, "real/file")
    (tmp_path / "link").symlink_to("real/file")
    (tmp_path / "chain").symlink_to("link")
    (tmp_path / "absolute").symlink_to(tmp_path / "real/file")
    by_path = {f.path: f for f in scan_directory(tmp_path)}
    assert set(by_path) == {"absolute", "chain", "link", "real/file"}
    assert all(f.real == tmp_path.resolve() / "real/file" for f in by_path.values())


def test_the_directory_itself_may_be_a_link(tmp_path: Path) -> None:
    fill(tmp_path / "real", "a")
    (tmp_path / "real/b").symlink_to("a")
    (tmp_path / "link").symlink_to("real")
    assert found(tmp_path / "link") == ["a", "b"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "/etc/hostname",
            r"(the link sub/bad -> /etc/hostname leaves the directory|broken link sub/bad -> /etc/hostname); ",
        ),
        ("../../outside", r"the link sub/bad -> \.\./\.\./outside leaves the directory; put the file itself there"),
        ("gone", r"broken link sub/bad -> gone; remove it or repair it"),
        ("bad", r"broken link sub/bad -> bad"),
        ("../../folder", r"sub/bad is a link to a directory; put the files themselves there"),
        (".", r"sub/bad is a link to a directory"),
    ],
)
def test_links_that_cannot_be_followed_are_refused_in_one_line(tmp_path: Path, target: str, message: str) -> None:
    fill(tmp_path, "outside", "folder/x", "source/a")
    (tmp_path / "source/sub").mkdir()
    (tmp_path / "source/sub/bad").symlink_to(target)
    with pytest.raises(InvalidInput, match=message) as caught:
        scan_directory(tmp_path / "source")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["new\nline", "back\\slash", "bad\udcffbytes", "del\x7f"])
def test_names_that_no_snapshot_may_have_are_refused(tmp_path: Path, name: str) -> None:
    fill(tmp_path, name)
    with pytest.raises(IntegrityError, match=r"the path '.*' is not (safe inside a snapshot|valid UTF-8)") as caught:
        scan_directory(tmp_path)
    assert str(caught.value).isprintable()


def test_special_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInput, match="pipe is not a regular file"):
        scan_directory(tmp_path)


def test_a_source_without_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for path, message in (("file", "is not a directory"), ("gone", "is not a directory"), ("empty", "no file in")):
        with pytest.raises(InvalidInput, match=message):
            scan_directory(tmp_path / path)


def test_a_snapshot_of_a_hub_cache_is_followed_into_its_blobs(tmp_path: Path) -> None:
    cache = HubCache(tmp_path / "hub")
    manifest = publish(cache)
    repo = cache.repo(manifest.repo)
    payload = move_to_shared_store(repo, manifest.files[2])
    sources = scan_directory(repo.snapshot(manifest.commit))
    assert [(f.path, f.size, f.etag) for f in sources] == [
        (f.path, f.size, f.etag) for f in sorted(manifest.files, key=lambda f: f.path)
    ]
    assert next(f.real for f in sources if f.path == manifest.files[2].path) == payload
    assert {f.path for f in sources} == set(CONTENTS)


def test_a_link_out_of_the_blobs_is_refused(tmp_path: Path) -> None:
    cache = HubCache(tmp_path / "hub")
    manifest = publish(cache)
    repo = cache.repo(manifest.repo)
    blob = repo.blob_path(manifest.files[0])
    blob.unlink()
    blob.symlink_to("/etc/passwd")
    with pytest.raises(P2PModelError, match="leaves the directory"):
        scan_directory(repo.snapshot(manifest.commit))
