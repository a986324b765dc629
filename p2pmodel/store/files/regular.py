"""Regular files, opened without following a link or waiting for a FIFO: in a shared cache other users make both."""

import errno
import os
import stat
from pathlib import Path

from p2pmodel.core.content.layout import MIB

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
