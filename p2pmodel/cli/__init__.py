"""The command line: a file a verb, each parses, calls and renders."""

import gc
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; every failure is one line on stderr and a stable exit code.

    Outside a coroutine (see `running`) SIGTERM ends it as Ctrl-C does. What is slow to import is imported here, so
    that a signal meanwhile is no traceback either.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        gc.disable()
        from p2pmodel.cli.verbs import execute  # noqa: PLC0415

        gc.freeze()  # what was imported stays to the end: no collection need go through it
        gc.enable()
        line, code = execute()
        _ignore_signals()
    except KeyboardInterrupt:
        _ignore_signals()
        line, code = "interrupted", 130
    if code == 130:
        # CPython ends by SIGINT, whatever the exit code, once a KeyboardInterrupt has left an exec of a string, as
        # dataclasses do while a module is imported; another such exec makes it forget that.
        exec("")  # noqa: S102
    if line and sys.stderr is not None:
        sys.stderr.write(f"p2pmodel: {line}\n")
    sys.exit(code)


def _ignore_signals() -> None:
    """What was to be done is done, or given up: a signal while Python ends could only falsify the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
