"""The log of a service, on stderr: for people on a terminal, a JSON object a line elsewhere."""

import sys
from collections.abc import Callable

import structlog

from p2pmodel.core.names import printable

MAX_LINE = 2000


def logger(*, quiet: bool) -> Callable[[str], None]:
    """A function that logs a line with the time; with `quiet` it does nothing."""
    if quiet:
        return lambda _line: None
    people = sys.stderr.isatty()
    log = structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if people else "iso", utc=not people),
            structlog.dev.ConsoleRenderer() if people else structlog.processors.JSONRenderer(),
        ],
    )
    return lambda line: log.info(printable(line, MAX_LINE))
