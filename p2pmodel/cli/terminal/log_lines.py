"""The lines of the log, rendered by structlog: for people on a terminal, one JSON object a line elsewhere."""

import logging
from collections.abc import Mapping

import structlog

from p2pmodel.cli.terminal.log import MAX_LINE
from p2pmodel.core.content.names import printable

structlog.configure(
    processors=[structlog.stdlib.filter_by_level, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
    cache_logger_on_first_use=False,
)


def emit(logger: str, level: int, event: str, keys: Mapping[str, object]) -> None:
    """Log an event with its keys."""
    structlog.stdlib.get_logger(logger).log(level, event, **keys)


def formatter(*, terminal: bool) -> logging.Formatter:
    """The formatter of our events, and of what libraries log."""
    return structlog.stdlib.ProcessorFormatter(
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if terminal else "iso", utc=not terminal),
            _text_last,
            structlog.dev.ConsoleRenderer(event_key="message") if terminal else structlog.processors.JSONRenderer(),
        ]
    )


def _text_last(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A library's line has no name: it is an event named `library`, with its text as the message."""
    if "message" not in event:
        event["message"], event["event"] = printable(str(event.get("event", "")), MAX_LINE), "library"
    return event
