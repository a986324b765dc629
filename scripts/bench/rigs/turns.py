"""Turns of the measurements on one machine, where one of them must run alone."""

import fcntl
import os
import tempfile
from contextlib import ExitStack


def take_turn(stack: ExitStack, *, alone: bool) -> None:
    """Wait until no measurement that must be alone runs, or with `alone` until no other runs at all.

    The turn lasts until `stack` ends. The lock is that of the temporary directory itself, so no file is left behind.
    """
    handle = os.open(tempfile.gettempdir(), os.O_RDONLY)
    stack.callback(os.close, handle)
    kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        print("waiting for another measurement on this machine to end ...", flush=True)
        fcntl.flock(handle, kind)
