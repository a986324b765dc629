"""Copies of files that share their blocks with the original where the file system can do that (btrfs, XFS)."""

import errno
import fcntl
import os
from pathlib import Path
from typing import BinaryIO

from p2pmodel.core.content.layout import MIB
from p2pmodel.store.files.regular import open_regular

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
