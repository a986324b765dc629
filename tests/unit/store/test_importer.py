"""Importing: equal content gives an equal snapshot, shares no file with the source, and never publishes a part."""

import hashlib
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import IntegrityError, InvalidInput, LocalResource, NoSpace, P2PModelError
from p2pmodel.store import importer as module
from p2pmodel.store.cache import HubCache
from p2pmodel.store.files import space
from p2pmodel.store.importer import (
    HUB_PATTERNS,
    MAX_GIT_SIZE,
    commit_of,
    import_directory,
    is_lfs,
    lfs_patterns,
    scan_directory,
)
from p2pmodel.store.verify import verify
from tests.support.hub_layout import write_snapshot
from tests.support.hub_snapshot import snapshot_of
from tests.support.stored import CONTENTS, move_to_shared_store, publish

REF = Reference.parse("org/model")


def write(folder: Path, contents: dict[str, bytes]) -> Path:
    for path, data in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "source", CONTENTS)


@pytest.fixture
def cache(tmp_path: Path) -> HubCache:
    return HubCache(tmp_path / "hub")


def test_a_directory_becomes_a_snapshot(cache: HubCache, source: Path) -> None:
    counted: list[int] = []
    manifest = import_directory(cache, source, REF, on_bytes=counted.append)
    repo = cache.repo(REF.repo)
    assert repo.resolve("main") == manifest.commit
    assert verify(repo, manifest).whole
    assert manifest.files == snapshot_of(CONTENTS).manifest.files
    assert not manifest.private
    for path, data in CONTENTS.items():
        assert (repo.snapshot(manifest.commit) / path).read_bytes() == data
    assert sum(counted) == manifest.total_size
    assert not (repo.private / "import").exists()


def test_the_commit_follows_from_the_content_alone(cache: HubCache, source: Path, tmp_path: Path) -> None:
    first = import_directory(cache, source, REF)
    copy = tmp_path / "elsewhere" / "other name"
    for path in sorted(CONTENTS, reverse=True):
        write(copy, {path: CONTENTS[path]})
        os.utime(copy / path, (1, 1))
        (copy / path).chmod(0o600)
    second = import_directory(HubCache(tmp_path / "hub2"), copy, Reference.parse("org/model@v1"), jobs=1)
    assert second == first
    for change in ({"config.json": b"{}"}, {"new": b""}):
        assert import_directory(cache, write(copy, change), REF).commit != first.commit
    (copy / "config.json").rename(copy / "renamed.json")
    write(copy, {"config.json": b"x"})


FILES = st.lists(
    st.builds(
        ManifestFile,
        st.text("abc", min_size=1, max_size=3),
        st.integers(0, 9),
        st.sampled_from(["a" * 40, "b" * 40]),
        st.none() | st.sampled_from(["c" * 64]),
    ),
    unique_by=lambda f: f.path,
    max_size=4,
)


@given(FILES, FILES)
def test_commits_are_equal_only_for_equal_content(ours: list[ManifestFile], theirs: list[ManifestFile]) -> None:
    def identity(files: list[ManifestFile]) -> set[tuple[str, str, str | None]]:
        return {(f.path, f.git_oid, f.sha256) for f in files}

    assert (commit_of(ours) == commit_of(theirs)) == (identity(ours) == identity(theirs))
    assert commit_of(ours) == commit_of(reversed(ours))


def test_the_commit_rule_never_changes() -> None:
    """Nodes of different versions must agree on it."""
    files = [ManifestFile("b", 1, "2" * 40, "3" * 64), ManifestFile("a", 1, "1" * 40)]
    text = f"p2pmodel import 1\na\0{'1' * 40}\0\nb\0{'2' * 40}\0{'3' * 64}\n"
    assert commit_of(files) == hashlib.sha1(text.encode()).hexdigest()


def test_the_source_stays_the_users_own(cache: HubCache, source: Path) -> None:
    manifest = import_directory(cache, source, REF)
    (source / "config.json").write_bytes(b"edited in place, and longer than it was before")
    repo = cache.repo(REF.repo)
    assert verify(repo, manifest).whole
    assert all(repo.blob_path(f).stat().st_nlink == 1 for f in manifest.files)
    edited = import_directory(cache, source, REF)
    assert edited.commit != manifest.commit
    assert repo.resolve("main") == edited.commit
    assert repo.commits() == sorted([manifest.commit, edited.commit])


def test_a_revision_names_the_ref_or_the_commit(cache: HubCache, source: Path) -> None:
    repo = cache.repo(REF.repo)
    manifest = import_directory(cache, source, Reference.parse("org/model@refs/pr/3"))
    assert repo.refs() == {"refs/pr/3": manifest.commit}
    commit = "f" * 40
    pinned = import_directory(cache, source, Reference.parse(f"org/model@{commit}"))
    assert pinned.commit == commit
    assert pinned.files == manifest.files
    assert repo.refs() == {"refs/pr/3": manifest.commit}
    assert repo.commits() == sorted([manifest.commit, commit])


def test_a_commit_that_means_other_files_here_is_refused(cache: HubCache, source: Path) -> None:
    known = publish(cache)
    import_directory(cache, source, Reference.parse(f"org/model@{known.commit}"))
    write(source, {"config.json": b"other"})
    with pytest.raises(InvalidInput, match=rf"commit {known.commit} of org/model is in the cache with other files"):
        import_directory(cache, source, Reference.parse(f"org/model@{known.commit}"))
    assert cache.repo(REF.repo).manifest(known.commit) == known


def test_the_private_flag_is_stored(cache: HubCache, source: Path) -> None:
    manifest = import_directory(cache, source, REF, private=True)
    assert cache.repo(REF.repo).manifest(manifest.commit) == manifest
    assert import_directory(cache, source, REF).private


def test_a_snapshot_of_another_cache_keeps_its_hashes(cache: HubCache, tmp_path: Path) -> None:
    """The blob names decide, not .gitattributes of the hub at that time, so that the snapshot equals the hub's."""
    odd = snapshot_of({"weights.dat": b"w" * 5000, "notes.bin": b"git", ".gitattributes": b"*.bin filter=lfs"})
    lfs = hashlib.sha256(b"w" * 5000).hexdigest()
    entry = ManifestFile("weights.dat", 5000, module.lfs_pointer_oid(lfs, 5000), lfs)
    plain = snapshot_of({"notes.txt": b"git"}).file("notes.txt")
    files = (entry, ManifestFile("notes.bin", 3, plain.git_oid), odd.file(".gitattributes"))
    other = HubCache(tmp_path / "other")
    given_ = type(odd)("org/model", "e" * 40, odd.contents, {f.path: f for f in files})
    manifest = publish(other, given_)
    ref = Reference.parse(f"org/model@{manifest.commit}")
    assert import_directory(cache, other.repo(REF.repo).snapshot(manifest.commit), ref) == manifest


def test_a_damaged_blob_of_another_cache_is_not_taken_in(cache: HubCache, tmp_path: Path) -> None:
    other = HubCache(tmp_path / "other")
    manifest = publish(other)
    weights = manifest.files[2]
    other.repo(REF.repo).blob_path(weights).write_bytes(b"\0" * weights.size)
    with pytest.raises(IntegrityError, match=f"{weights.path} is damaged: the name of its blob is {weights.etag}"):
        import_directory(cache, other.repo(REF.repo).snapshot(manifest.commit), REF)
    assert cache.repo(REF.repo).commits() == []
    assert not (cache.repo(REF.repo).private / "import").exists()


def test_gitattributes_of_the_source_decide(cache: HubCache, source: Path) -> None:
    write(source, {".gitattributes": b"*.json filter=lfs diff=lfs merge=lfs -text\n"})
    manifest = import_directory(cache, source, REF)
    assert {f.path for f in manifest.files if f.is_lfs} == {"config.json"}


def test_cached_blobs_are_not_written_again(cache: HubCache, source: Path) -> None:
    manifest = import_directory(cache, source, REF)
    repo = cache.repo(REF.repo)
    inodes = {f.path: repo.blob_path(f).stat().st_ino for f in manifest.files}
    assert import_directory(cache, repo.snapshot(manifest.commit), REF) == manifest
    assert {f.path: repo.blob_path(f).stat().st_ino for f in manifest.files} == inodes


def test_a_second_import_repairs_a_damaged_blob(cache: HubCache, source: Path) -> None:
    manifest = import_directory(cache, source, REF)
    repo = cache.repo(REF.repo)
    weights = manifest.files[2]
    repo.blob_path(weights).write_bytes(b"\0" * weights.size)
    assert import_directory(cache, source, REF) == manifest
    assert verify(repo, manifest).whole


def test_blobs_of_the_hub_are_checked_and_then_adopted(cache: HubCache, source: Path) -> None:
    theirs = write_snapshot(cache.root, "org/model", CONTENTS, refs=())
    repo = cache.repo(REF.repo)
    weights = theirs.files[2]
    inode = repo.blob_path(weights).stat().st_ino
    config = theirs.files[0]
    repo.blob_path(config).write_bytes(b"?" * config.size)
    manifest = import_directory(cache, source, REF)
    assert manifest.files == theirs.files
    assert repo.blob_path(weights).stat().st_ino == inode
    assert repo.blob_path(config).read_bytes() == CONTENTS["config.json"]
    assert all(repo.is_verified(f) for f in manifest.files)


def test_equal_files_share_a_blob(cache: HubCache, tmp_path: Path) -> None:
    source = write(tmp_path / "twins", {"a.bin": b"same", "b.bin": b"same", "c/d.bin": b"same"})
    manifest = import_directory(cache, source, REF)
    repo = cache.repo(REF.repo)
    assert len(list((repo.folder / "blobs").iterdir())) == 1
    assert verify(repo, manifest).whole


def test_large_files_are_copied_right(cache: HubCache, tmp_path: Path) -> None:
    data = random.Random(2).randbytes(3 * 1024 * 1024 + 17)
    manifest = import_directory(cache, write(tmp_path / "s", {"m.safetensors": data}), REF)
    assert manifest.files[0].etag == hashlib.sha256(data).hexdigest()
    assert verify(cache.repo(REF.repo), manifest).whole


def test_files_are_cloned_if_possible(cache: HubCache, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system with reflinks, simulated by a copy; a clone needs no free space."""

    def clone(given: Path, made: Path) -> bool:
        shutil.copyfile(given, made)
        return True

    monkeypatch.setattr(module, "clone", clone)
    monkeypatch.setattr(space.shutil, "disk_usage", lambda _path: (1, 1, 0))
    manifest = import_directory(cache, source, REF)
    assert verify(cache.repo(REF.repo), manifest).whole


def test_too_little_space_is_an_error_before_any_copy(
    cache: HubCache, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage(source))(10, 10, 0)
    monkeypatch.setattr(module, "clone", lambda _given, _made: False)
    monkeypatch.setattr(space.shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(NoSpace, match=r"has 0 bytes free, 219.2 kB are needed"):
        import_directory(cache, source, REF)


def test_a_source_that_changes_meanwhile_is_refused(
    cache: HubCache, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = source / "model-00001.safetensors"
    real = module.chunks

    def meddling(path: Path, offset: int, length: int) -> object:
        for data in real(path, offset, length):
            yield data
            if path == weights:
                with weights.open("ab") as out:
                    out.write(b"more")

    monkeypatch.setattr(module, "chunks", meddling)
    with pytest.raises(LocalResource, match="changed while it was read"):
        import_directory(cache, source, REF)
    assert cache.repo(REF.repo).commits() == []


def test_an_import_can_be_stopped_and_leaves_no_files(cache: HubCache, source: Path) -> None:
    def stop(_count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_directory(cache, source, REF, on_bytes=stop)
    repo = cache.repo(REF.repo)
    assert repo.commits() == []
    assert not (repo.private / "import").exists()


def test_leftovers_of_a_killed_import_are_removed(cache: HubCache, source: Path) -> None:
    left = cache.repo(REF.repo).made_private / "import" / "half"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x")
    import_directory(cache, source, REF)
    assert not left.exists()


def test_two_imports_of_one_repository_do_not_mix(cache: HubCache, source: Path) -> None:
    repo = cache.repo(REF.repo)
    with (
        FileLock(repo.made_private / "import.lock"),
        pytest.raises(LocalResource, match="another import of org/model is running"),
    ):
        import_directory(cache, source, REF)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, source: Path) -> None:
    (tmp_path / "hub").write_text("oops")
    with pytest.raises(LocalResource, match=rf"{tmp_path}/hub is not a directory"):
        import_directory(HubCache(tmp_path / "hub"), source, REF)


def test_a_bad_source_leaves_the_cache_untouched(cache: HubCache, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not a directory"):
        import_directory(cache, tmp_path / "gone", REF)
    assert not cache.root.exists()


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


ATTRIBUTES = """
# a comment filter=lfs
*.safetensors filter=lfs diff=lfs merge=lfs -text
tokenizer.json filter=lfs diff=lfs merge=lfs -text
saved_model/**/* filter=lfs diff=lfs merge=lfs -text
/top.dat filter=lfs
images/*.png filter=lfs
*.txt text
   *.odd   filter=lfs

alone
"""
PATHS = [
    "model.safetensors", "sub/model.safetensors", "tokenizer.json", "sub/tokenizer.json", "tokenizer.json.bak",
    "saved_model/a", "saved_model/a/b/c", "x/saved_model/a", "top.dat", "sub/top.dat", "images/a.png", "images.png",
    "a.txt", "b.odd", "alone", "model.safetensors.index.json", "café.safetensors", "with space.safetensors",
]  # fmt: skip


def test_patterns_are_those_with_the_filter() -> None:
    expected = ("*.safetensors", "tokenizer.json", "saved_model/**/*", "/top.dat", "images/*.png", "*.odd")
    assert lfs_patterns(ATTRIBUTES) == expected
    assert lfs_patterns("") == ()


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_patterns_match_as_in_git(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitattributes").write_text(ATTRIBUTES)
    answer = subprocess.run(
        ["git", "-C", str(tmp_path), "check-attr", "-z", "filter", "--", *PATHS], capture_output=True, check=True
    ).stdout.decode()
    fields = answer.split("\0")
    git = {fields[i]: fields[i + 2] == "lfs" for i in range(0, len(fields) - 1, 3)}
    assert {path: is_lfs(path, 1, lfs_patterns(ATTRIBUTES)) for path in PATHS} == git


@pytest.mark.parametrize(
    ("path", "size", "expected"),
    [
        ("model-00001-of-00002.safetensors", 1, True),
        ("onnx/model.onnx", 1, True),
        ("model.gguf", 0, True),
        ("spiece.model", 1, True),
        ("assets/logo.png", 1, True),
        ("runs/events.out.tfevents.1", 1, True),
        ("saved_model/variables/x", 1, True),
        ("config.json", 1, False),
        ("model.safetensors.index.json", 1, False),
        ("vocab.json", 2_776_833, False),
        ("tokenizer.json", MAX_GIT_SIZE, False),
        ("tokenizer.json", MAX_GIT_SIZE + 1, True),
        ("README.md", 1, False),
        (".gitattributes", 1, False),
    ],
)
def test_the_hubs_own_rules(path: str, size: int, expected: bool) -> None:
    assert is_lfs(path, size, HUB_PATTERNS) is expected
