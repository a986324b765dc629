"""Publication: order, atomicity, locks, and existing entries."""

import asyncio
import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import IntegrityError, InvalidInput, LocalResource, Unavailable
from p2pmodel.store import publish as module
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.files.folder import Folder
from p2pmodel.store.publish import blob_lock, publish_blob, publish_snapshot, some_blob_locks
from p2pmodel.store.snapshots import snapshot_files
from tests.support.hub_snapshot import HubSnapshot, snapshot_of
from tests.support.stored import CONTENTS, move_to_shared_store, publish, stage

WEIGHTS = "model-00001.safetensors"


@pytest.fixture
def repo(tmp_path: Path) -> RepoCache:
    return HubCache(tmp_path / "hub").repo(RepoId("org/model"))


@pytest.fixture
def snapshot() -> HubSnapshot:
    return snapshot_of(CONTENTS)


def staged(repo: RepoCache, snapshot: HubSnapshot, path: str = WEIGHTS) -> tuple[ManifestFile, Path]:
    file = snapshot.file(path)
    return file, stage(repo, snapshot.manifest, file, CONTENTS[path])


def hub_lock(repo: RepoCache, file: ManifestFile) -> FileLock:
    path = repo.cache.root / ".locks" / "models--org--model" / f"{file.etag}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path, thread_local=False)


def test_a_blob_gets_its_name_and_is_recorded_as_verified(repo: RepoCache, snapshot: HubSnapshot) -> None:
    file, path = staged(repo, snapshot)
    inode = path.stat().st_ino
    blob = publish_blob(repo, file, path)
    assert blob == repo.folder / "blobs" / file.etag
    assert blob.stat().st_ino == inode
    assert not path.exists()
    assert repo.is_verified(file)


def test_content_reaches_the_disk_before_the_name(
    repo: RepoCache, snapshot: HubSnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[str, bool]] = []
    file, path = staged(repo, snapshot)
    real, real_folder = module.sync, Folder.sync

    def watched(target: Path) -> None:
        steps.append((target.name, repo.blob_path(file).exists()))
        real(target)

    def watched_folder(folder: Folder) -> None:
        steps.append((folder.path.name, repo.blob_path(file).exists()))
        real_folder(folder)

    monkeypatch.setattr(module, "sync", watched)
    monkeypatch.setattr(Folder, "sync", watched_folder)
    publish_blob(repo, file, path)
    assert steps == [(path.name, False), ("blobs", True)]


def test_a_blob_of_the_wrong_size_is_not_published(repo: RepoCache, snapshot: HubSnapshot) -> None:
    file, path = staged(repo, snapshot)
    os.truncate(path, file.size - 1)
    with pytest.raises(IntegrityError, match=f"has {file.size - 1} bytes, but {WEIGHTS} should have {file.size}"):
        publish_blob(repo, file, path)
    assert repo.blob(file) is None
    assert path.exists()


def test_a_verified_blob_stays(repo: RepoCache, snapshot: HubSnapshot) -> None:
    file, path = staged(repo, snapshot)
    inode = publish_blob(repo, file, path).stat().st_ino
    _, path = staged(repo, snapshot)
    assert publish_blob(repo, file, path).stat().st_ino == inode
    assert not path.exists()


@pytest.mark.parametrize("there", [b"short", b"\0" * len(CONTENTS[WEIGHTS])])
def test_an_unverified_blob_is_replaced(repo: RepoCache, snapshot: HubSnapshot, there: bytes) -> None:
    file, path = staged(repo, snapshot)
    repo.blob_path(file).parent.mkdir()
    repo.blob_path(file).write_bytes(there)
    assert publish_blob(repo, file, path).read_bytes() == CONTENTS[WEIGHTS]


def test_the_shared_store_is_never_written_to(repo: RepoCache, snapshot: HubSnapshot) -> None:
    manifest = publish(repo.cache, snapshot)
    file = snapshot.file(WEIGHTS)
    payload = move_to_shared_store(repo, file)
    payload.write_bytes(b"\0" * file.size)
    assert not repo.is_verified(file)
    publish_blob(repo, file, stage(repo, manifest, file, CONTENTS[WEIGHTS]))
    assert payload.read_bytes() == b"\0" * file.size
    assert repo.blob_path(file).read_bytes() == CONTENTS[WEIGHTS]
    assert not repo.blob_path(file).is_symlink()


def test_the_wait_for_a_client_that_downloads_the_blob_is_bounded(repo: RepoCache, snapshot: HubSnapshot) -> None:
    file, path = staged(repo, snapshot)
    with hub_lock(repo, file), pytest.raises(Unavailable, match=rf"process {os.getpid()} has held .*{file.etag}.lock"):
        publish_blob(repo, file, path, patience=0.1)
    assert path.exists()
    with hub_lock(repo, file) as lock:
        threading.Timer(0.1, lock.release, kwargs={"force": True}).start()
        publish_blob(repo, file, path, patience=10)
    assert repo.blob(file)


async def test_blob_lock_keeps_others_out_and_lets_us_publish(repo: RepoCache, snapshot: HubSnapshot) -> None:
    file, path = staged(repo, snapshot)
    other = hub_lock(repo, file)
    async with blob_lock(repo, file):
        with pytest.raises(TimeoutError):
            other.acquire(timeout=0)
        await asyncio.to_thread(publish_blob, repo, file, path, patience=0)
        with pytest.raises(TimeoutError):
            other.acquire(timeout=0)
    other.acquire(timeout=0)
    with pytest.raises(Unavailable):
        async with blob_lock(repo, file, patience=0.06):
            pytest.fail("the other holds it")
    other.release()


async def test_of_many_locks_those_are_taken_that_are_free(repo: RepoCache, snapshot: HubSnapshot) -> None:
    free, busy = snapshot.file("config.json"), snapshot.file(WEIGHTS)
    with hub_lock(repo, busy):
        async with some_blob_locks(repo, [busy, free]) as held:
            assert held == {free}
            with pytest.raises(TimeoutError):
                hub_lock(repo, free).acquire(timeout=0)
        with pytest.raises(Unavailable, match=busy.etag):
            async with some_blob_locks(repo, [busy], patience=0.06):
                pytest.fail("the other holds it")
    async with some_blob_locks(repo, [busy, free]) as held:
        assert held == {busy, free}


async def test_an_error_while_taking_locks_leaves_none(repo: RepoCache, snapshot: HubSnapshot) -> None:
    first, second = snapshot.file("config.json"), snapshot.file(WEIGHTS)
    folder = repo.cache.root / ".locks" / "models--org--model"
    (folder / f"{second.etag}.lock").mkdir(parents=True)
    with pytest.raises(LocalResource):
        async with some_blob_locks(repo, [first, second]):
            pytest.fail("the second is a folder")
    with hub_lock(repo, first) as lock:
        assert lock.is_locked


async def test_a_cancelled_wait_takes_no_lock(repo: RepoCache, snapshot: HubSnapshot) -> None:
    file, _ = staged(repo, snapshot)

    async def hold() -> None:
        async with blob_lock(repo, file):
            await asyncio.sleep(60)

    with hub_lock(repo, file):
        task = asyncio.create_task(hold())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    hub_lock(repo, file).acquire(timeout=0)


def test_a_snapshot_is_links_into_the_blobs(repo: RepoCache, snapshot: HubSnapshot) -> None:
    manifest = publish(repo.cache, snapshot, refs=["main", "refs/pr/1", snapshot.commit])
    root = repo.snapshot(manifest.commit)
    nested = root / "nested/deep er/größe.bin"
    assert str((root / WEIGHTS).readlink()) == f"../../blobs/{snapshot.file(WEIGHTS).etag}"
    assert str(nested.readlink()).startswith("../../../../blobs/")
    for path, content in CONTENTS.items():
        assert (root / path).read_bytes() == content
    assert (repo.folder / "refs" / "main").read_bytes() == manifest.commit.encode()
    assert (repo.folder / "refs" / "refs" / "pr" / "1").read_bytes() == manifest.commit.encode()
    assert set(repo.refs()) == {"main", "refs/pr/1"}
    assert (repo.cache.root / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
    assert repo.manifest(manifest.commit) == manifest
    assert list(repo.tmp.iterdir()) == []


def test_publishing_again_changes_no_file(repo: RepoCache, snapshot: HubSnapshot) -> None:
    def state() -> dict[str, int]:
        skipped = {".p2pmodel"}
        entries = [p for p in repo.folder.rglob("*") if not skipped & set(p.parts)]
        return {str(p): p.lstat().st_mtime_ns for p in entries}

    publish(repo.cache, snapshot)
    before = state()
    publish(repo.cache, snapshot)
    assert state() == before


def test_a_ref_moves_to_the_new_commit(repo: RepoCache) -> None:
    first = publish(repo.cache, snapshot_of({"a.txt": b"1"}))
    second = publish(repo.cache, snapshot_of({"a.txt": b"2"}))
    assert repo.resolve("main") == second.commit
    assert repo.commits() == sorted([first.commit, second.commit])
    (repo.folder / "refs" / "main").write_text(second.commit + "\n")
    publish(repo.cache, snapshot_of({"a.txt": b"2"}))
    assert (repo.folder / "refs" / "main").read_bytes() == second.commit.encode()


def test_a_part_of_a_snapshot_publishes_that_part_and_lists_all(repo: RepoCache, snapshot: HubSnapshot) -> None:
    manifest = publish(repo.cache, snapshot, paths=["config.json"])
    root = repo.snapshot(manifest.commit)
    assert [p.name for p in root.rglob("*")] == ["config.json"]
    assert repo.manifest(manifest.commit) == manifest
    assert len(repo.missing(manifest.files)) == len(CONTENTS) - 1
    publish(repo.cache, snapshot)
    assert {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()} == set(CONTENTS)


def test_a_file_in_place_of_a_link_is_replaced(repo: RepoCache, snapshot: HubSnapshot) -> None:
    root = repo.snapshot(snapshot.commit)
    (root / "nested").mkdir(parents=True)
    (root / "config.json").write_text("an old copy")
    (root / WEIGHTS).symlink_to("nowhere")
    publish(repo.cache, snapshot)
    assert (root / "config.json").is_symlink()
    assert (root / WEIGHTS).read_bytes() == CONTENTS[WEIGHTS]


def test_no_snapshot_is_published_while_a_blob_is_absent(repo: RepoCache, snapshot: HubSnapshot) -> None:
    manifest = snapshot.manifest
    with pytest.raises(IntegrityError, match=r"the blob of config.json is not in"):
        publish_snapshot(repo, manifest, [snapshot.file("config.json")], ["main"])
    assert repo.commits() == []
    assert repo.refs() == {}


def test_a_ref_that_cannot_be_is_refused(repo: RepoCache, snapshot: HubSnapshot) -> None:
    with pytest.raises(InvalidInput):
        publish(repo.cache, snapshot, refs=["../../x"])
    publish(repo.cache, snapshot, refs=["v1"])
    with pytest.raises(LocalResource, match=r"(not a directory|file exists)"):
        publish(repo.cache, snapshot, refs=["v1/x"])


@pytest.mark.parametrize("name", ["blobs", "snapshots", "trees", "refs"])
def test_a_file_in_place_of_a_folder_is_a_clear_error(repo: RepoCache, snapshot: HubSnapshot, name: str) -> None:
    repo.folder.mkdir(parents=True)
    (repo.folder / name).write_text("oops")
    with pytest.raises(LocalResource) as caught:
        publish(repo.cache, snapshot)
    assert str(repo.folder / name) in str(caught.value)
    assert repo.resolve("main") is None


@contextmanager
def failing_at(monkeypatch: pytest.MonkeyPatch, step: str) -> Iterator[None]:
    def crash(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module, step, crash)
        yield


@pytest.mark.parametrize("step", ["show_file", "record_tree", "record_manifest"])
def test_refs_come_last(repo: RepoCache, snapshot: HubSnapshot, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    with failing_at(monkeypatch, step), pytest.raises(LocalResource, match="no space left"):
        publish(repo.cache, snapshot)
    assert repo.refs() == {}
    publish(repo.cache, snapshot)
    assert repo.resolve("main") == snapshot.commit


def parts_seen(repo: RepoCache, sizes: dict[str, int]) -> Iterator[str]:
    """What is visible now under a blob's, a link's or a ref's name without being whole."""
    blobs = (repo.folder / "blobs").glob("*")
    yield from (f"half a blob: {blob}" for blob in blobs if blob.stat().st_size != sizes[blob.name])
    links = (p for p in (repo.folder / "snapshots").rglob("*") if p.is_symlink())
    yield from (f"a dangling link: {link}" for link in links if not link.exists())
    for name, commit in repo.refs().items():
        manifest = repo.manifest(commit)
        if manifest is None or any(not (repo.snapshot(commit) / f.path).exists() for f in manifest.files):
            yield f"{name} ahead of its snapshot"


def test_a_watcher_never_finds_a_part(repo: RepoCache) -> None:
    versions = [snapshot_of({"a.bin": bytes([i]) * 300_000, "b/c.json": b"%d" % i}) for i in range(6)]
    sizes = {f.etag: f.size for version in versions for f in version.manifest.files}
    trouble: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            trouble.extend(parts_seen(repo, sizes))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for version in versions:
            publish(repo.cache, version)
    finally:
        stop.set()
        watcher.join()
    assert trouble == []
    assert repo.resolve("main") == versions[-1].commit


def test_two_publishers_of_one_snapshot_both_succeed(tmp_path: Path, snapshot: HubSnapshot) -> None:
    done: list[Manifest] = []

    def work() -> None:
        cache = HubCache(tmp_path / "hub")
        own = cache.repo(RepoId("org/model"))
        for number, file in enumerate(snapshot.manifest.files):
            path = own.tmp / f"{threading.get_ident()}-{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(CONTENTS[file.path])
            publish_blob(own, file, path, patience=20)
        publish_snapshot(own, snapshot.manifest, snapshot.manifest.files, ["main"])
        done.append(snapshot.manifest)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    repo = HubCache(tmp_path / "hub").repo(RepoId("org/model"))
    assert len(done) == 4
    assert repo.missing(snapshot.manifest.files) == []
    assert all(repo.is_verified(f) for f in snapshot.manifest.files)


def across_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Folder, _source: Path, name: str) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(folder.path / name))

    monkeypatch.setattr(Folder, "take", refuse)


def test_across_devices_a_copy_is_hashed_before_it_gets_the_name(
    repo: RepoCache, snapshot: HubSnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, path = staged(repo, snapshot)
    across_devices(monkeypatch)
    rename, seen = Folder.rename, []

    def watched(folder: Folder, name: str, other: str) -> None:
        seen.append((other, (folder.path / name).read_bytes(), (folder.path / other).exists()))
        rename(folder, name, other)

    monkeypatch.setattr(Folder, "rename", watched)
    assert publish_blob(repo, file, path).read_bytes() == CONTENTS[WEIGHTS]
    assert seen == [(file.etag, CONTENTS[WEIGHTS], False)]
    assert not path.exists()
    assert [blob.name for blob in repo.blob_path(file).parent.iterdir()] == [file.etag]


@pytest.mark.parametrize("step", ["fsync", "copyfileobj", "_check_copy"])
def test_a_copy_that_fails_is_removed(
    repo: RepoCache, snapshot: HubSnapshot, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    file, path = staged(repo, snapshot)
    across_devices(monkeypatch)

    def crash(*_args: object) -> None:
        raise OSError(errno.EIO, "the disk is broken")

    place = {"fsync": module.os, "copyfileobj": snapshot_files.shutil, "_check_copy": snapshot_files}[step]
    monkeypatch.setattr(module, "sync", lambda _path: None)
    monkeypatch.setattr(place, step, crash)
    with pytest.raises(LocalResource, match="the disk is broken"):
        publish_blob(repo, file, path)
    assert list(repo.blob_path(file).parent.iterdir()) == []
    assert path.read_bytes() == CONTENTS[WEIGHTS]


def test_a_copy_with_other_bytes_gets_no_name(
    repo: RepoCache, snapshot: HubSnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, path = staged(repo, snapshot)
    across_devices(monkeypatch)
    monkeypatch.setattr(snapshot_files.shutil, "copyfileobj", lambda _from, copy, _size: copy.write(bytes(file.size)))
    with pytest.raises(IntegrityError, match="check the disk"):
        publish_blob(repo, file, path)
    assert list(repo.blob_path(file).parent.iterdir()) == []


@pytest.mark.parametrize("place", ["blobs", "snapshots", "refs", "trees"])
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make links of another user")
def test_a_planted_folder_is_refused_and_not_written_to(
    repo: RepoCache, snapshot: HubSnapshot, tmp_path: Path, place: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    repo.folder.mkdir(parents=True)
    (repo.folder / place).symlink_to(elsewhere)
    os.chown(repo.folder / place, 65534, 65534, follow_symlinks=False)
    with pytest.raises(LocalResource, match=f"{repo.folder / place}; remove it: another user of the cache"):
        publish(repo.cache, snapshot)
    assert list(elsewhere.iterdir()) == []


def test_a_file_that_takes_the_place_of_a_blob_at_once_does_not_count_as_verified(
    repo: RepoCache, snapshot: HubSnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, path = staged(repo, snapshot)
    real = Folder.sync

    def swapped(folder: Folder) -> None:
        real(folder)
        if folder.path.name == "blobs":
            (folder.path / "wrong").write_bytes(bytes(file.size))
            (folder.path / "wrong").replace(folder.path / file.etag)

    monkeypatch.setattr(Folder, "sync", swapped)
    publish_blob(repo, file, path)
    assert not repo.is_verified(file)
