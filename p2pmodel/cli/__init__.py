"""The command line: one module for each verb, which parses options, calls the package and prints the result."""

import gc
import os
import resource
import signal
import sys
import warnings
from contextlib import ExitStack, suppress
from typing import NoReturn

from p2pmodel.cli.at_once import ended_at_once

_MOST_FILES = 65_536
"""Open files up to which the limit is raised."""


def main() -> NoReturn:
    """Run the command line; every failure is one line on stderr and a stable exit code.

    Outside a coroutine (see `signals`) SIGTERM has the effect of Ctrl-C. Slow imports run inside this function, where a
    signal ends the process (see `at_once`).
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _open_standard_streams()
    try:
        with ExitStack() as importing:
            importing.enter_context(ended_at_once())
            importing.callback(_keep_modules)
            gc.disable()
            from p2pmodel.cli.verbs import execute  # noqa: PLC0415
            from p2pmodel.core.allocator import share_heaps  # noqa: PLC0415

            share_heaps()
            _raise_open_file_limit()
            line, code = execute(importing.close)
        _ignore_signals()
    except KeyboardInterrupt:
        _ignore_signals()
        line, code = "interrupted", 130
    if code == 130:
        # After a KeyboardInterrupt has left an exec of a string (dataclasses run one at import), CPython ends by
        # SIGINT and ignores the exit code. Another exec of a string clears that state.
        exec("")  # noqa: S102
    if line:
        from p2pmodel.cli.terminal.output import visible  # noqa: PLC0415

        sys.stderr.write(f"p2pmodel: {visible(line)}\n")
    sys.exit(code)


def _open_standard_streams() -> None:
    """Open the null device in place of each closed standard stream.

    The next file or socket would get its number, and with it what this process and libraries write to the stream.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            os.set_inheritable(null, True)
        if getattr(sys, name) is None:
            stream = open(number, "w" if number else "r", encoding="utf-8", closefd=False)  # noqa: SIM115 - stays open
            setattr(sys, name, stream)


def _keep_modules() -> None:
    """End the imports: modules live until the end, and collections need not traverse them."""
    gc.freeze()
    gc.enable()


def _ignore_signals() -> None:
    """Ignore signals while Python ends: they could only change the exit code.

    The coroutine of a verb that was interrupted before it began is no fault that a user should read about.
    """
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _raise_open_file_limit() -> None:
    """Raise the soft limit towards the hard one: each connection and each shard takes a descriptor, 1024 are too few.

    Programs that this process starts inherit it; the package starts none that use `select`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
