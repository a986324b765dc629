"""Measurements on one machine take turns, where one of them wants to be alone."""

import fcntl
import os
import tempfile
from contextlib import ExitStack


def take_turn(stack: ExitStack, *, alone: bool) -> None:
    """Wait until nobody measures who wants to be alone, or with `alone` until nobody measures; hold that until `stack`
    ends. The lock is the temporary directory's own, so that no file is left behind."""
    handle = os.open(tempfile.gettempdir(), os.O_RDONLY)
    stack.callback(os.close, handle)
    kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        print("waiting for another measurement on this machine to end ...", flush=True)
        fcntl.flock(handle, kind)
