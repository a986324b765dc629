"""Signals while modules are imported and settings are read: they end the process, since there is nothing to clean up.

A KeyboardInterrupt could be lost there: libraries in other languages print it and go on, or report an error of theirs.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def ended_at_once() -> Iterator[None]:
    """While the context lasts, SIGINT and SIGTERM end the process with exit code 130, unless they are ignored."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(_number: int, _frame: object) -> None:
    os.write(2, b"p2pmodel: interrupted\n")
    os._exit(130)
