"""Importing: equal content gives an equal snapshot, shares no file with the source, and never publishes a part."""

import hashlib
import os
import random
import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import IntegrityError, InvalidInput, LocalResource, NoSpace
from p2pmodel.store.cache import HubCache
from p2pmodel.store.files import space
from p2pmodel.store.imports import importer as module
from p2pmodel.store.imports.importer import commit_of, import_directory
from p2pmodel.store.verify import verify
from tests.support.hub_layout import write_snapshot
from tests.support.hub_snapshot import snapshot_of
from tests.support.stored import CONTENTS, publish

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
