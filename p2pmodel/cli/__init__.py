"""The command line: one module for each verb, which parses options, calls the package and prints the result."""

import gc
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; every failure is one line on stderr and a stable exit code.

    Outside a coroutine (see `signals`) SIGTERM has the effect of Ctrl-C. Slow imports run inside this function, so a
    signal during them prints no traceback either.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        gc.disable()
        from p2pmodel.cli.open_files import raise_open_file_limit  # noqa: PLC0415
        from p2pmodel.cli.verbs import execute  # noqa: PLC0415

        raise_open_file_limit()
        line, code = execute(_keep_modules)
        _ignore_signals()
    except KeyboardInterrupt:
        _ignore_signals()
        line, code = "interrupted", 130
    if code == 130:
        # After a KeyboardInterrupt has left an exec of a string (dataclasses run one at import), CPython ends by
        # SIGINT and ignores the exit code. Another exec of a string clears that state.
        exec("")  # noqa: S102
    if line and sys.stderr is not None:
        from p2pmodel.cli.terminal.output import visible  # noqa: PLC0415

        sys.stderr.write(f"p2pmodel: {visible(line)}\n")
    sys.exit(code)


def _keep_modules() -> None:
    """End the imports: modules live until the end, and collections need not traverse them."""
    gc.freeze()
    gc.enable()


def _ignore_signals() -> None:
    """Ignore signals while Python ends: they could only change the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
