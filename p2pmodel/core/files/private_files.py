"""Folders and files of state that are this user's alone from the moment they are made, whatever the umask is."""

import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from p2pmodel.core.content.names import printable
from p2pmodel.errors import LocalResource
from p2pmodel.os_errors import naming, translated

FOLDER_MODE = 0o700
FILE_MODE = 0o600
_OTHERS = 0o077
LEFTOVER_AFTER = 3600.0
"""Seconds after which a temporary file is one that a killed process has left."""

_TEMPORARY = ".new-"


def make_folders(path: Path) -> None:
    """Make the folder `path` and each missing folder above it with mode 0700; an existing folder keeps its own."""
    if not path.parent.exists():
        make_folders(path.parent)
    with suppress(FileExistsError):
        path.mkdir(mode=FOLDER_MODE)


@translated()
def private_folder(path: Path) -> None:
    """As `make_folders`; raises LocalResource if `path` belongs to another user, or other users have access to it.

    An empty folder of this user is closed to others. One with content may be for more than p2pmodel, and is refused.
    """
    make_folders(path)
    if not path.is_dir():
        raise LocalResource(f"{printable(str(path))} is not a directory", hint="remove it, or name another folder")
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid():
            raise LocalResource(
                f"the folder {printable(str(path))} belongs to another user (uid {status.st_uid})",
                hint="name a folder of your own, or run as its user",
            )
        if not stat.S_IMODE(status.st_mode) & _OTHERS:
            return
        if os.listdir(descriptor):  # noqa: PTH208 - no Path reads a descriptor
            raise LocalResource(
                f"other users have access to the folder {printable(str(path))}",
                hint=f"chmod 700 {printable(str(path))}, or name a folder in it, which will be made",
            )
        os.fchmod(descriptor, FOLDER_MODE)
    finally:
        os.close(descriptor)


def write_private(path: Path, data: bytes) -> None:
    """Replace the content of `path` by `data` in one step, durably, with mode 0600. Its folder exists."""
    with naming(path), _temporary(path) as (descriptor, fresh):
        with os.fdopen(os.dup(descriptor), "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(path)
    _sync(path.parent)


def append_private(path: Path) -> TextIO:
    """`path`, opened to append lines; a new file has mode 0600, an existing file keeps its own."""
    # Without O_NONBLOCK the open of a FIFO that no program reads would not return.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    return os.fdopen(os.open(path, flags, FILE_MODE), "a", encoding="utf-8", buffering=1)


def write_output(path: Path, data: bytes) -> None:
    """Write `data` to `path`, which the user named; a regular file has mode 0600 before it has the content."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
    with naming(path), os.fdopen(descriptor, "wb") as out:
        if stat.S_ISREG(os.fstat(out.fileno()).st_mode):
            os.fchmod(out.fileno(), FILE_MODE)
        out.write(data)


def remove_leftovers(folder: Path, prefix: str = _TEMPORARY, *, clock: Callable[[], float] = time.time) -> None:
    """Remove the temporary files that killed processes have left in `folder`: old files that begin with `prefix`."""
    now = clock()
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            # By the time of the last change, which no program sets. In the future it is that of another clock.
            changed = entry.stat(follow_symlinks=False).st_ctime
            if entry.name.startswith(prefix) and abs(now - changed) > LEFTOVER_AFTER:
                Path(entry.path).unlink(missing_ok=True)


@contextmanager
def _temporary(path: Path) -> Iterator[tuple[int, Path]]:
    """A new file beside `path`, which no longer exists afterwards unless it was moved."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=_TEMPORARY)
    fresh = Path(name)
    try:
        yield descriptor, fresh
    finally:
        os.close(descriptor)
        fresh.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
