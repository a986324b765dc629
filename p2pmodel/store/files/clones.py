"""Copies of files that share their blocks with the original where the file system can do that (btrfs, XFS)."""

import fcntl
import os
from pathlib import Path
from typing import BinaryIO

from p2pmodel.core.content.layout import MIB
from p2pmodel.store.files.regular import open_regular

_FICLONE = 0x40049409
"""ioctl of Linux that lets two files share their blocks until one is written to."""
_STEP = 64 * MIB


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
        if not share_blocks(original, copy):
            done = 0
            while done < size:
                count = os.copy_file_range(original.fileno(), copy.fileno(), min(_STEP, size - done), done, done)
                if not count:
                    raise OSError(f"{target} ends after {done} of {size} bytes")
                done += count
        os.fsync(copy.fileno())
