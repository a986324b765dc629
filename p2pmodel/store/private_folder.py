"""The folder of p2pmodel in a repository's cache folder: unfinished files, and records that a later run trusts.

It belongs to this user with mode 0700, so that no other user of a shared cache can plant anything in it. It is opened
once and used through its descriptor: other users with write access to the repository's folder may rename it, or put a
link in its place.
"""

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from p2pmodel.errors import LocalResource
from p2pmodel.os_errors import DESCRIPTORS
from p2pmodel.store.files.disk import temporary
from p2pmodel.store.files.folder import Folder

NAME = ".p2pmodel"
ABSENT = DESCRIPTORS / "absent"
"""Does not exist, and cannot be made."""

_FORBIDDEN = stat.S_IWGRP | stat.S_IWOTH


class PrivateFolder:
    """`.p2pmodel` in the folder `repo` of the cache `root`; where another user has that, `.p2pmodel-<uid>`.

    Its paths lead through the open directory. They are right as long as this object lives.
    """

    def __init__(self, root: Path, repo: str) -> None:
        self._root = root
        self._repo = repo
        self._lock = threading.Lock()
        self._place = f"{root / repo}/"
        self._opened: list[tuple[Folder, Path, str]] = []
        """The last is in use. Unfinished files may be open in the others, which were moved or removed."""

    @property
    def existing(self) -> Path:
        """Its path for reading; a path that does not exist if there is no such folder."""
        with self._lock:
            try:
                return self._open(make=False)
            except (OSError, LocalResource):
                return ABSENT

    @property
    def made(self) -> Path:
        """Its path for writing; made if missing. Raises OSError, and LocalResource if it is not safe to use."""
        with self._lock:
            return self._open(make=True)

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
