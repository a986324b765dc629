"""Translation of the operating system's errors into the error tree, shared by every edge that touches disk."""

import errno
from pathlib import Path

from p2pmodel.errors import LocalResource, NoSpace, P2PModelError


def translate(error: BaseException) -> P2PModelError:
    """The P2PModelError that says what `error` means to the user."""
    if isinstance(error, P2PModelError):
        return error
    if isinstance(error, OSError):
        return _translate_os(error)
    return P2PModelError(
        f"internal error: {type(error).__name__}: {error}", hint="set P2PMODEL_DEBUG=1 for the traceback and report it"
    )


def _translate_os(error: OSError) -> P2PModelError:
    where = f" at {Path(str(error.filename))}" if error.filename else ""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"no space left on the disk{where}", hint="free some and run the same command: it resumes")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return LocalResource(f"not writable or readable{where}: {reason}", hint="check the owner and mode")
    if error.errno == errno.EADDRINUSE:
        return LocalResource(f"the address is already in use: {reason}", hint="choose another port, or 0 for any")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return LocalResource("too many open files", hint="raise the limit (ulimit -n)")
    if error.errno in (errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
        return LocalResource(f"{reason.lower()}{where}", hint="check the path")
    return LocalResource(f"{reason}{where}")
