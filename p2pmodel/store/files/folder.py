"""Open directories and regular files: a name leads nowhere else than it seems to.

Other users may write to a shared cache. A path is looked up again at each use, and any folder of it may be a link by
then; an open directory stays the same, wherever it is moved, and names are used relative to it. Regular files are
opened without following a link or waiting for a FIFO.
"""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from p2pmodel.core.content.layout import MIB
from p2pmodel.os_errors import descriptor_path

MAX_RECORD = 256 * MIB
"""Bytes of the largest record that is read: the tree of a snapshot with a million files."""

_SAFE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


def open_regular(path: str | Path, flags: int = os.O_RDONLY, mode: int = 0o666, *, dir_fd: int | None = None) -> int:
    """A descriptor of the regular file `path`, relative to the open directory `dir_fd`.

    Raises OSError for a link, and for everything else that is not a regular file.
    """
    descriptor = os.open(path, flags | _SAFE, mode, dir_fd=dir_fd)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ELOOP, "not a regular file", str(path))
    return descriptor


def read_regular(path: str | Path, limit: int = MAX_RECORD, *, dir_fd: int | None = None) -> bytes:
    """The content of a regular file of at most `limit` bytes. Raises OSError, also for a longer one."""
    with os.fdopen(open_regular(path, dir_fd=dir_fd), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return data


def is_regular(path: Path) -> bool:
    """Whether `path` is a regular file, and no link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


class Folder:
    """An open directory. Close it, use it as a context, or drop it."""

    def __init__(self, descriptor: int, path: Path, names: tuple[str, ...] = ()) -> None:
        """Use `open`, or `enter` of another folder. `names` lead from `path` to this directory."""
        self.descriptor = descriptor
        self._path = path
        self._names = names

    @classmethod
    def open(cls, path: Path, *, make: bool = False) -> Self:
        """Open `path`, of which every part is trusted."""
        if make:
            with suppress(FileExistsError):  # a file: its opening fails
                path.mkdir(parents=True, exist_ok=True)
        return cls(os.open(path, _DIRECTORY), path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the directory."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    @property
    def path(self) -> Path:
        """Where this directory was when it was opened."""
        return self._path.joinpath(*self._names)

    @property
    def anchor(self) -> Path:
        """A path of this directory that is right while it is open, also after it was moved."""
        return descriptor_path(self.descriptor)

    def enter(self, *names: str, make: bool = False, mode: int = 0o777) -> "Folder":
        """The directory `names[0]/names[1]/...` in this one; missing ones are made if `make` is set.

        A link is followed only if this user or root owns it. Raises OSError for any other link, and for a file.
        """
        current = Folder(os.dup(self.descriptor), self._path, self._names)
        for name in names:
            with current as outer:
                current = outer.inner(_descend(outer, name, make=make, mode=mode), name)
        return current

    def inner(self, descriptor: int, name: str) -> "Folder":
        """The directory `name` of this one, which was opened as `descriptor`."""
        return Folder(descriptor, self._path, (*self._names, name))

    def open_file(self, name: str, flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
        """A descriptor of the regular file `name`; OSError for a link or anything else."""
        try:
            return open_regular(name, flags, mode, dir_fd=self.descriptor)
        except OSError as error:
            error.filename = str(self.path / name)
            raise

    def read(self, name: str, limit: int = MAX_RECORD) -> bytes:
        """The content of the regular file `name`."""
        return read_regular(name, limit, dir_fd=self.descriptor)

    def status(self, name: str) -> os.stat_result | None:
        """The status of `name`, of a link its own; None if there is nothing."""
        try:
            return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def has_folder(self, name: str) -> bool:
        """Whether `name` is a directory, and no link to one."""
        status = self.status(name)
        return status is not None and stat.S_ISDIR(status.st_mode)

    def names(self) -> list[str]:
        """The names in this directory."""
        return os.listdir(self.descriptor)  # noqa: PTH208 - of a descriptor

    def target(self, name: str) -> str | None:
        """The text of the link `name`; None if it is not a link."""
        try:
            return os.readlink(name, dir_fd=self.descriptor)
        except OSError:
            return None

    def take(self, source: Path, name: str) -> None:
        """Move `source`, a path that no other user can change, to `name`, which is replaced."""
        try:
            os.replace(source, name, dst_dir_fd=self.descriptor)
        except OSError as error:
            error.filename = str(self.path / name)
            raise

    def rename(self, name: str, other: str) -> None:
        """Rename `name` to `other` in this directory, which is replaced."""
        os.replace(name, other, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def remove(self, name: str) -> None:
        """Remove `name`, a file or link, if it exists."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.descriptor)

    def remove_tree(self, name: str) -> None:
        """Remove the directory `name` and all below it, if it exists. Links are removed, not followed."""
        if (status := self.status(name)) is not None:
            if stat.S_ISDIR(status.st_mode):
                shutil.rmtree(name, dir_fd=self.descriptor)
            else:
                self.remove(name)

    def remove_empty(self, *names: str) -> None:
        """Remove the directory `names[0]/names[1]/...` and its parents in this one, as far as they are empty."""
        for depth in range(len(names), 0, -1):
            try:
                with self.enter(*names[: depth - 1]) as parent:
                    os.rmdir(names[depth - 1], dir_fd=parent.descriptor)
            except OSError:
                return

    def walk(self) -> Iterator[tuple["Folder", tuple[str, ...], str]]:
        """Every entry below this directory that is not a directory: its folder, the names of the folders on the way
        there, and its name. Links are entries. Each folder is open until the next entry."""
        yield from _walk(self, ())

    def sync(self) -> None:
        """Sync the names in this directory to the disk."""
        os.fsync(self.descriptor)


def _walk(folder: Folder, way: tuple[str, ...]) -> Iterator[tuple[Folder, tuple[str, ...], str]]:
    with os.scandir(folder.descriptor) as entries:
        listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in listed:
        if not is_folder:
            yield folder, way, name
            continue
        try:
            inner = folder.enter(name)
        except OSError:  # removed or replaced a moment ago
            continue
        with inner:
            yield from _walk(inner, (*way, name))


def _descend(outer: Folder, name: str, *, make: bool, mode: int) -> int:
    flags = _DIRECTORY | os.O_NOFOLLOW
    try:
        try:
            return os.open(name, flags, dir_fd=outer.descriptor)
        except FileNotFoundError:
            if not make:
                raise
            with suppress(FileExistsError):
                os.mkdir(name, mode, dir_fd=outer.descriptor)
            return os.open(name, flags, dir_fd=outer.descriptor)
    except OSError as error:
        error.filename = str(outer.path / name)
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        return _follow(outer, name, error)


def _follow(outer: Folder, name: str, error: OSError) -> int:
    """Open the target of the link `name` if this user or root made the link; else raise `error`, or that it is a link
    of another user."""
    link = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=outer.descriptor)
    try:
        status = os.fstat(link)
        if not stat.S_ISLNK(status.st_mode):
            raise error
        if status.st_uid not in (0, os.geteuid()):
            raise OSError(errno.ELOOP, "a link that another user made", error.filename)
        target = os.readlink("", dir_fd=link)
    finally:
        os.close(link)
    return os.open(target, _DIRECTORY, dir_fd=outer.descriptor)
