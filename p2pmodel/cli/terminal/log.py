"""The log on stderr: readable lines on a terminal, one JSON object a line elsewhere."""

import logging
import sys

from p2pmodel.core.content.names import printable
from p2pmodel.core.notes import LEVELS, Level, Note

MAX_LINE = 2000
"""Characters of a logged text."""

_NAME = "p2pmodel"
_LIBRARIES = ("aiohttp", "asyncio")
"""Their warnings go the same way."""


def configure(level: Level) -> None:
    """Log events of `level` and above to stderr, those of libraries that use `logging` included."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LazyFormatter(terminal=sys.stderr.isatty()))
    for name in (_NAME, *_LIBRARIES):
        logging.getLogger(name).handlers[:] = [handler]
    logging.getLogger(_NAME).setLevel(_number(level))


class _LazyFormatter(logging.Formatter):
    """The formatter of `log_lines`, imported with the first line: structlog is slow to import, and most commands log
    nothing."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal
        self._formatter: logging.Formatter | None = None

    def format(self, record: logging.LogRecord) -> str:
        if self._formatter is None:
            from p2pmodel.cli.terminal.log_lines import formatter  # noqa: PLC0415

            self._formatter = formatter(terminal=self._terminal)
        return self._formatter.format(record)


def shows(line: str) -> bool:
    """Whether a note is of the configured level or above; `info` while none is configured."""
    return _number(Note.of(line).level) >= (logging.getLogger(_NAME).level or logging.INFO)


def log(line: str) -> None:
    """Log a note, or a plain line as an event named `note`."""
    note = Note.of(line)
    if not logging.getLogger(_NAME).isEnabledFor(_number(note.level)):
        return
    from p2pmodel.cli.terminal.log_lines import emit  # noqa: PLC0415

    keys = {name: printable(value, MAX_LINE) if isinstance(value, str) else value for name, value in note.keys.items()}
    emit(_NAME, _number(note.level), note.event, keys | {"message": printable(note, MAX_LINE)})


def _number(level: Level) -> int:
    return 10 * (1 + LEVELS.index(level))
