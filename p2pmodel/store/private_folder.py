"""The folder of p2pmodel in a repository's cache folder: unfinished files, and records that a later run trusts.

It belongs to this user with mode 0700, so that no other user of a shared cache can plant anything in it. It is opened
once and used through its descriptor: other users with write access to the repository's folder may rename it, or put a
link in its place.

Where this user cannot write to it, or cannot make it, a folder of the node's own state takes its place for writing: a
cache on a read-only mount is verified, served and seeded from as any other.
"""

import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from p2pmodel.core.files.private_files import private_folder
from p2pmodel.errors import LocalResource
from p2pmodel.os_errors import DESCRIPTORS
from p2pmodel.store.files.disk import temporary
from p2pmodel.store.files.folder import Folder

NAME = ".p2pmodel"
ABSENT = DESCRIPTORS / "absent"
"""Does not exist, and cannot be made."""

READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}

_FORBIDDEN = stat.S_IWGRP | stat.S_IWOTH


class PrivateFolder:
    """`.p2pmodel` in the folder `repo` of the cache `root`; where another user has that, `.p2pmodel-<uid>`.

    `instead` is the folder for writing where the cache cannot be written to; without one, writing fails there. Paths in
    the cache lead through the open directory. They are right as long as this object lives.
    """

    def __init__(self, root: Path, repo: str, instead: Path | None = None) -> None:
        self._root = root
        self._repo = repo
        self._instead = instead
        self._lock = threading.Lock()
        self._place = f"{root / repo}/"
        self._refused = False
        """Whether the file system has refused a write that the modes would allow."""
        self._opened: list[tuple[Folder, Path, str]] = []
        """The last is in use. Unfinished files may be open in the others, which were moved or removed."""

    @property
    def existing(self) -> Path:
        """Its path in the cache, for reading; a path that does not exist if there is no such folder."""
        with self._lock:
            try:
                return self._open(make=False)
            except (OSError, LocalResource):
                return ABSENT

    @property
    def made(self) -> Path:
        """Its path for writing; made if missing. Raises OSError, and LocalResource if it is not safe to use."""
        with self._lock:
            if self._instead is not None and not self._is_writable():
                return self._made_instead(self._instead)
            try:
                return self._open(make=True)
            except OSError as error:
                if self._instead is None or error.errno not in READ_ONLY:
                    raise
                self._refused = True
                return self._made_instead(self._instead)

    @property
    def places(self) -> tuple[Path, ...]:
        """The paths for reading, the one for writing first. They need not exist."""
        in_cache = self.existing
        if self._instead is None:
            return (in_cache,)
        return (in_cache, self._instead) if self.writable else (self._instead, in_cache)

    def made_instead(self) -> Path | None:
        """The folder in the node's own state, made; None without one."""
        return None if self._instead is None else self._made_instead(self._instead)

    @property
    def writable(self) -> bool:
        """Whether it can be written to in the cache."""
        with self._lock:
            return self._is_writable()

    @property
    def tmp(self) -> Path:
        """A folder in it for files that are about to be moved to their places."""
        return self.made / "tmp"

    def _open(self, *, make: bool) -> Path:
        if self._opened:
            folder, path, place = self._opened[-1]
            if _same(folder, place):
                return path
        with Folder.open(self._root, make=make) as root, root.enter(self._repo, make=make) as repo:
            found = _own(repo, make=make)
        self._opened.append((found, found.anchor, self._place + found.path.name))
        return self._opened[-1][1]

    def _is_writable(self) -> bool:
        if self._refused:
            return False
        try:
            folder = self._open(make=False)
        except (OSError, LocalResource):
            folder = self._root / self._repo
        return is_writable(folder)

    @staticmethod
    def _made_instead(folder: Path) -> Path:
        private_folder(folder)
        return folder


def is_writable(folder: Path) -> bool:
    """Whether this user may make files in `folder`, or in the folder above it that exists."""
    there = next((each for each in (folder, *folder.parents) if each.exists()), folder)
    return os.access(there, os.W_OK | os.X_OK, effective_ids=True)


def _same(opened: Folder, place: str) -> bool:
    """Whether the directory is still at `place`."""
    try:
        return os.path.samestat(os.fstat(opened.descriptor), os.lstat(place))
    except OSError:
        return False


def _own(repo: Folder, *, make: bool) -> Folder:
    refused: LocalResource | None = None
    for name in _names():
        try:
            folder = repo.enter(name, make=make, mode=0o700)
        except FileNotFoundError:
            if refused is None:
                raise
            continue
        except OSError as error:
            refused = refused or _unusable(repo, name, error.strerror or str(error))
            continue
        status = os.fstat(folder.descriptor)
        if status.st_uid != _user_in(repo, status.st_uid):
            reason = "it belongs to another user"
        elif status.st_mode & _FORBIDDEN:
            reason = "other users may write to it"
        else:
            if stat.S_IMODE(status.st_mode) & 0o077:
                with suppress(OSError):  # a read-only mount, or a file system with one mode for all files
                    os.fchmod(folder.descriptor, 0o700)
            return folder
        folder.close()
        refused = refused or _unusable(repo, name, reason)
    assert refused is not None
    raise refused


def _names() -> Iterator[str]:
    yield NAME
    yield f"{NAME}-{os.geteuid()}"


def _user_in(repo: Folder, owner: int) -> int:
    """The user that files of this process belong to in `repo`: a file server may map users, e.g. root."""
    user = os.geteuid()
    if owner == user:
        return user
    try:
        probe = temporary(repo.anchor)
        descriptor = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except OSError:
        return user
    try:
        return os.fstat(descriptor).st_uid
    finally:
        os.close(descriptor)
        probe.unlink(missing_ok=True)


def _unusable(repo: Folder, name: str, reason: str) -> LocalResource:
    return LocalResource(
        f"cannot use {repo.path / name}: {reason}", hint="remove it, or choose another cache with --cache-dir"
    )
