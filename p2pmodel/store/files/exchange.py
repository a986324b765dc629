"""Two names of a file system exchanged in one step."""

import ctypes
import errno
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

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
