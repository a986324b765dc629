"""The hub's lock files: shared with other processes, counted within this one."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import FileLock, SoftFileLock, Timeout

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import Unavailable
from p2pmodel.store.content_locks import BlobLocks

REPO = RepoId("org/model")
FILE = ManifestFile("a", 1, "a" * 40)
OTHER = ManifestFile("b", 1, "b" * 40)
TRY = """
import sys, filelock
try:
    filelock.FileLock(sys.argv[1]).acquire(timeout=0)
except filelock.Timeout:
    print("busy")
else:
    print("free")
"""


def seen_by_another_process(folder: Path) -> str:
    path = folder / "models--org--model" / f"{FILE.etag}.lock"
    command = [sys.executable, "-c", TRY, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_it_is_held_until_as_many_releases_as_acquisitions(tmp_path: Path) -> None:
    locks = BlobLocks(tmp_path)
    locks.acquire(REPO, FILE, 0)
    assert locks.try_acquire(REPO, FILE)
    locks.release(REPO, FILE)
    assert seen_by_another_process(tmp_path) == "busy"
    locks.release(REPO, FILE)
    assert seen_by_another_process(tmp_path) == "free"


def test_another_thread_may_give_it_back(tmp_path: Path) -> None:
    locks = BlobLocks(tmp_path)
    locks.acquire(REPO, FILE, 0)
    thread = threading.Thread(target=locks.release, args=(REPO, FILE))
    thread.start()
    thread.join()
    assert seen_by_another_process(tmp_path) == "free"


def test_blobs_have_locks_of_their_own(tmp_path: Path) -> None:
    ours, theirs = BlobLocks(tmp_path), BlobLocks(tmp_path)
    ours.acquire(REPO, FILE, 0)
    assert not theirs.try_acquire(REPO, FILE)
    assert theirs.try_acquire(REPO, OTHER)
    with pytest.raises(Unavailable, match=f"{FILE.etag}.lock for 0 seconds"):
        theirs.acquire(REPO, FILE, 0.06)
    ours.release(REPO, FILE)
    theirs.acquire(REPO, FILE, 0)
    theirs.release(REPO, FILE)
    theirs.release(REPO, OTHER)


def test_a_lock_that_huggingface_hub_holds_is_not_to_be_had(tmp_path: Path) -> None:
    locks = BlobLocks(tmp_path)
    path = tmp_path / "models--org--model" / f"{FILE.etag}.lock"
    path.parent.mkdir(parents=True)
    with FileLock(path, mode=0o664):
        assert not locks.try_acquire(REPO, FILE)
    assert locks.try_acquire(REPO, FILE)
    locks.release(REPO, FILE)


def test_all_users_of_the_group_may_wait_for_a_lock(tmp_path: Path) -> None:
    locks, before = BlobLocks(tmp_path), os.umask(0o077)
    try:
        locks.acquire(REPO, FILE, 0)
    finally:
        os.umask(before)
    locks.release(REPO, FILE)
    path = tmp_path / "models--org--model" / f"{FILE.etag}.lock"
    assert path.stat().st_mode & 0o777 == 0o664


def test_a_lock_file_that_was_removed_meanwhile_gives_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "models--org--model" / f"{FILE.etag}.lock"
    locks = BlobLocks(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", lambda _descriptor, _how: path.unlink())
        assert not locks.try_acquire(REPO, FILE)
    assert locks.try_acquire(REPO, FILE)
    assert seen_by_another_process(tmp_path) == "busy"
    locks.release(REPO, FILE)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_without_flock_a_soft_lock_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def missing(_descriptor: int, _how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", missing)
    locks = BlobLocks(tmp_path)
    locks.acquire(REPO, FILE, 0)
    path = tmp_path / "models--org--model" / f"{FILE.etag}.lock"
    assert path.exists()
    with pytest.raises(Timeout):
        SoftFileLock(path, thread_local=False).acquire(timeout=0)
    others = BlobLocks(tmp_path)
    assert not others.try_acquire(REPO, FILE)
    with pytest.raises(Unavailable, match=rf"process {os.getpid()} on \S+ has held .*lock for 0 seconds; if that"):
        others.acquire(REPO, FILE, 0)
    assert path.exists()
    locks.release(REPO, FILE)
    assert not path.exists()


def test_the_process_that_holds_a_lock_is_named(tmp_path: Path) -> None:
    ours, theirs = BlobLocks(tmp_path), BlobLocks(tmp_path)
    ours.acquire(REPO, FILE, 0)
    with pytest.raises(Unavailable, match=f"^process {os.getpid()} has held .*{FILE.etag}.lock"):
        theirs.acquire(REPO, FILE, 0)
    ours.release(REPO, FILE)
