"""Translation of the operating system's errors into the error tree, with one wording for every room."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from p2pmodel.errors import LocalResource, NoSpace, P2PModelError

DESCRIPTORS = Path("/proc/self/fd")
"""Below it Linux has a name for each open file of this process. `store` reaches open directories by these names."""


def descriptor_path(descriptor: int) -> Path:
    """The path of an open file or folder that is right while it is open. Raises LocalResource without /proc."""
    _check_descriptors()
    return DESCRIPTORS / str(descriptor)


@lru_cache(1)
def _check_descriptors() -> None:
    if not DESCRIPTORS.is_dir():
        raise LocalResource(
            f"there is no {DESCRIPTORS}: open folders have no paths without it", hint="mount /proc in this container"
        )


@contextmanager
def translated() -> Iterator[None]:
    """Raise an OSError of the body as the P2PModelError that explains it. Also a decorator."""
    try:
        yield
    except OSError as error:
        raise translate(error) from error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add `path` to an OSError of a call that has only a descriptor."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def translate(error: BaseException) -> P2PModelError:
    """The P2PModelError that explains `error` to the user."""
    if isinstance(error, P2PModelError):
        return error
    if isinstance(error, OSError):
        return _translate_os(error)
    return P2PModelError(
        f"internal error: {type(error).__name__}: {error}", hint="set P2PMODEL_DEBUG=1 for the traceback and report it"
    )


def named(path: str) -> str:
    """`path` as users know it: an open directory by its present name."""
    parts = Path(path).parts
    if parts[: len(DESCRIPTORS.parts)] != DESCRIPTORS.parts or len(parts) == len(DESCRIPTORS.parts):
        return path
    descriptor, *rest = parts[len(DESCRIPTORS.parts) :]
    try:
        return str((DESCRIPTORS / descriptor).readlink().joinpath(*rest))
    except OSError:
        return path


def disk_full(path: str, more: str = "") -> NoSpace:
    """The error of a full disk; `path` is what was written ("": not known), `more` follows it."""
    path = named(path)
    where = f" at {path}" if path else ""
    return NoSpace(
        f"no space left on the disk{where}{more}", hint="free some space and run the same command: it resumes"
    )


def disk_failed(path: str, reason: str) -> LocalResource:
    """The error of a disk that failed for any other `reason` at `path` ("": not known)."""
    where = named(path) or "the disk"
    return LocalResource(f"cannot use {where}: {reason}", hint="repair it and run the same command: it resumes")


def _translate_os(error: OSError) -> P2PModelError:
    path = named(str(Path(str(error.filename)))) if error.filename else ""
    where = f" at {path}" if path else ""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(path)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return LocalResource(f"not writable or readable{where}: {reason}", hint="check the owner and mode")
    if error.errno == errno.EADDRINUSE:
        return LocalResource(f"the address is already in use: {reason}", hint="choose another port, or 0 for any")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return LocalResource("too many open files", hint="raise the limit (ulimit -n)")
    if error.errno in (errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
        return LocalResource(f"{reason.lower()}{where}", hint="check the path")
    planted = "remove it: another user of the cache may have made it" if error.errno == errno.ELOOP else ""
    return LocalResource(f"{reason}{where}", hint=planted)
