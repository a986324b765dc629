"""Files that only this user or root can have written: settings, tokens, keys and certificates.

A file is judged by the descriptor that is read: a path may lead elsewhere a moment later.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from p2pmodel.core.content.names import printable
from p2pmodel.errors import InvalidInput

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_MAX_BYTES = 1 << 20
"""A settings file or a token is much smaller."""


@contextmanager
def opened(path: Path, what: str, *, secret: bool = False) -> Iterator[int]:
    """A descriptor of the regular file `path`, which belongs to this user or root, and which others cannot change.

    `secret`: others cannot read it either; a file of root may be readable by this user's group. `what` is the file's
    name in messages, as in `token file`. Raises InvalidInput.
    """
    try:
        # Without O_NONBLOCK the open of a FIFO without a writer would not return.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _unreadable(path, what, error.strerror or "it cannot be opened") from None
    try:
        _judge(os.fstat(descriptor), path, what, secret=secret)
        _judge_folders(path, what)
        yield descriptor
    finally:
        os.close(descriptor)


def read_own(path: Path, what: str, *, secret: bool = False) -> str:
    """The text of a file as `opened` describes it. Raises InvalidInput, also for a file that is not UTF-8 text."""
    with opened(path, what, secret=secret) as descriptor:
        return text_of(descriptor, path, what)


def text_of(descriptor: int, path: Path, what: str) -> str:
    """The text of the file that is `opened`. Raises InvalidInput."""
    try:
        with os.fdopen(os.dup(descriptor), "rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, what, error.strerror or "it cannot be read") from None
    if len(data) > _MAX_BYTES:
        raise _unreadable(path, what, "it is longer than 1 MiB")
    try:
        return data.decode("utf-8-sig")  # some editors begin a file with a byte-order mark
    except UnicodeDecodeError:
        raise _unreadable(path, what, "it is not UTF-8 text") from None


def read_secret(path: Path, what: str = "token file") -> tuple[str, str]:
    """The text of a file that other users cannot read, and the file's name for messages. Raises InvalidInput."""
    return read_own(path, what, secret=True), named(path, what)


def named(path: Path, what: str = "token file") -> str:
    """The name of a file for messages."""
    return f"the {what} {printable(str(path))}"


def others_can_read(status: os.stat_result) -> bool:
    """Whether users besides its owner can read a file; the group that root chose for its own file does not count."""
    chosen = status.st_uid == 0 and (os.geteuid() != 0 or status.st_gid != os.getegid())
    return bool(status.st_mode & (stat.S_IROTH if chosen else stat.S_IRGRP | stat.S_IROTH))


def _judge(status: os.stat_result, path: Path, what: str, *, secret: bool) -> None:
    shown = printable(str(path))
    if stat.S_ISDIR(status.st_mode):
        raise _unreadable(path, what, "Is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise _unreadable(path, what, "it is not a regular file")
    if status.st_uid not in (0, os.geteuid()):
        raise InvalidInput(
            f"the {what} {shown} belongs to another user (uid {status.st_uid})",
            hint="use a file that belongs to you or to root",
        )
    if status.st_mode & _OTHERS_WRITE:
        raise InvalidInput(f"others can change the {what} {shown}", hint=f"chmod go-w {shown}")
    if secret and others_can_read(status):
        raise InvalidInput(f"others can read the {what} {shown}", hint=f"chmod 600 {shown}")


def _judge_folders(path: Path, what: str) -> None:
    """Write access to a folder is enough to put a link to another file in the place of this one."""
    for folder in {path.absolute().parent, path.resolve().parent}:
        try:
            mode = folder.stat().st_mode
        except OSError as error:
            raise _unreadable(path, what, error.strerror or "its folder cannot be read") from None
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise InvalidInput(
                f"others can replace the {what} {printable(str(path))}", hint=f"chmod o-w {printable(str(folder))}"
            )


def _unreadable(path: Path, what: str, reason: str) -> InvalidInput:
    return InvalidInput(f"the {what} {printable(str(path))} cannot be read: {reason}")
