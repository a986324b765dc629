"""The log on stderr: readable lines on a terminal, one JSON object a line elsewhere."""

import logging
import sys

import structlog

from p2pmodel.core.content.names import printable
from p2pmodel.core.notes import LEVELS, Level, Note

MAX_LINE = 2000
"""Characters of a logged text."""

_NAME = "p2pmodel"
_LIBRARIES = ("aiohttp", "asyncio")
"""Their warnings go the same way."""


def configure(level: Level) -> None:
    """Log events of `level` and above to stderr, those of libraries that use `logging` included."""
    terminal = sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if terminal else "iso", utc=not terminal),
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(event_key="message") if terminal else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _text_last, renderer],
        )
    )
    for name in (_NAME, *_LIBRARIES):
        logging.getLogger(name).handlers[:] = [handler]
    logging.getLogger(_NAME).setLevel(_number(level))


def shows(line: str) -> bool:
    """Whether a note is of the configured level or above; `info` while none is configured."""
    return _number(Note.of(line).level) >= (logging.getLogger(_NAME).level or logging.INFO)


def log(line: str) -> None:
    """Log a note, or a plain line as an event named `note`."""
    note = Note.of(line)
    keys = {name: printable(value, MAX_LINE) if isinstance(value, str) else value for name, value in note.keys.items()}
    logger = structlog.stdlib.get_logger(_NAME)
    logger.log(_number(note.level), note.event, message=printable(note, MAX_LINE), **keys)


def _text_last(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A library's line has no name: it is an event named `library`, with its text as the message."""
    if "message" not in event:
        event["message"], event["event"] = printable(str(event.get("event", "")), MAX_LINE), "library"
    return event


def _number(level: Level) -> int:
    return 10 * (1 + LEVELS.index(level))
