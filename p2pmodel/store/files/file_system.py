"""Features of a file system: symlinks, hard links, copies that share their blocks with the original (btrfs, XFS), and
two names exchanged in one step. Links are tried out before a transfer, not after it.
"""

import ctypes
import errno
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from p2pmodel.core.content.layout import MIB
from p2pmodel.errors import LocalResource
from p2pmodel.store.files.disk import temporary
from p2pmodel.store.files.folder import open_regular
from p2pmodel.store.private_folder import PrivateFolder

NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""Errors of a file system that cannot make a link, or no further one."""


class LinkSupport:
    """What works in one repository's part of a cache. Tried once; blocks."""

    def __init__(self, private: PrivateFolder) -> None:
        self._private = private
        self._symlinks: bool | None = None
        self._hard: bool | None = None

    @property
    def symlinks(self) -> bool:
        """Whether it has symlinks, as the hub's layout needs. Without them a snapshot has the files themselves."""
        if self._symlinks is None:
            self._symlinks = can_symlink(self._private.tmp)
        return self._symlinks

    @property
    def hard(self) -> bool:
        """Whether a file may have a second name."""
        if self._hard is None:
            self._hard = can_hard_link(self._private.tmp)
        return self._hard

    def folder(self) -> Path:
        """A private folder with symlinks: in the cache, or in the node's own state. Raises LocalResource if neither has
        them."""
        if self.symlinks:
            return self._private.made
        if (instead := self._private.made_instead()) is not None and can_symlink(instead / "tmp"):
            return instead
        raise LocalResource(
            f"neither the cache nor the state folder has symlinks, which the engine needs ({instead})",
            hint="set state_dir to a folder on a local disk",
        )


def can_symlink(folder: Path) -> bool:
    """Whether symlinks can be made in `folder`, which is made. Raises any other OSError."""
    return _can(lambda probe: probe.symlink_to("target"), folder)


def can_hard_link(folder: Path) -> bool:
    """Whether files in `folder`, which is made, can have a second name. Raises any other OSError."""
    original = temporary(folder)
    original.touch()
    try:
        return _can(lambda probe: os.link(original, probe), folder)
    finally:
        original.unlink()


def _can(make: Callable[[Path], None], folder: Path) -> bool:
    probe = temporary(folder)
    try:
        make(probe)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return False
    probe.unlink()
    return True


_FICLONE = 0x40049409
"""ioctl of Linux that lets two files share their blocks until one is written to."""
_STEP = 64 * MIB
_NOT_IN_THE_KERNEL = {errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM}
"""Errors of copy_file_range where only reading and writing copies, as between two file systems."""


def clone(source: Path, target: Path) -> bool:
    """Make `target` share the blocks of `source`; False if the file system does not support it."""
    with os.fdopen(open_regular(source), "rb") as original, target.open("wb") as copy:
        return share_blocks(original, copy)


def share_blocks(original: BinaryIO, copy: BinaryIO) -> bool:
    """As `clone`, for open files; `copy` is empty."""
    try:
        fcntl.ioctl(copy, _FICLONE, original.fileno())
    except OSError:
        return False
    return True


def copy_content(original: BinaryIO, target: Path, size: int) -> None:
    """Make the new file `target` with the first `size` bytes of `original`, synced. Raises OSError."""
    with target.open("xb") as copy:
        if not share_blocks(original, copy) and not copy_range(original.fileno(), copy.fileno(), 0, 0, size):
            raise OSError(f"{target} ends before {size} bytes")
        os.fsync(copy.fileno())


def copy_range(source: int, target: int, start: int, offset: int, length: int) -> bool:
    """Copy `length` bytes of the open file `source` from `start` to `offset` of the open file `target`; where the file
    system can do that, they share the blocks. False if the source ends before. Raises OSError."""
    done = 0
    while done < length:
        try:
            count = os.copy_file_range(source, target, min(_STEP, length - done), start + done, offset + done)
        except OSError as error:
            if error.errno not in _NOT_IN_THE_KERNEL:
                raise
            count = os.pwrite(target, os.pread(source, min(MIB, length - done), start + done), offset + done)
        if not count:
            return False
        done += count
    return True


_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}


def exchange(one: Path, other: Path) -> None:
    """Give each of two existing names, of folders or links, the content of the other (renameat2 of Linux).

    Where the file system does not support it, `one` does not exist for a moment. Raises OSError.
    """
    call = _renameat2()
    code = errno.ENOSYS
    if call is not None:
        if not call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
            return
        code = ctypes.get_errno()
    if code not in _UNSUPPORTED:
        raise OSError(code, os.strerror(code), str(one))
    one.rename(aside_of(one))
    other.rename(one)
    aside_of(one).rename(other)


def aside_of(one: Path) -> Path:
    """Where `one` may be if a process was killed between the steps of `exchange`."""
    return one.with_name(f".{one.name}.aside")


@cache
def _renameat2() -> Any | None:
    with suppress(OSError, AttributeError):
        return ctypes.CDLL(None, use_errno=True).renameat2
    return None
