"""Notes: lines for the user that are events of the log, too."""

from typing import Literal, Self

Level = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[Level, ...] = ("debug", "info", "warning", "error")
"""From the least severe to the most severe."""


class Note(str):
    """One line of text that carries what its log event needs: a level, a name in snake_case, and keys.

    A line without these is an event named `note` of level info.
    """

    __slots__ = ("event", "keys", "level")

    level: Level
    event: str
    keys: dict[str, object]

    def __new__(
        cls, text: str, *, event: str = "note", level: Level = "info", keys: dict[str, object] | None = None
    ) -> Self:
        """Create a note; line breaks in `text` become spaces."""
        note = super().__new__(cls, " ".join(text.split()))
        note.level, note.event, note.keys = level, event, keys or {}
        return note

    @classmethod
    def of(cls, line: str) -> "Note":
        """`line` itself if it is a note, else a note with that text."""
        return line if isinstance(line, Note) else cls(line)

    def within(self, prefix: str, **keys: object) -> "Note":
        """The same event with `prefix` before its text, and more keys."""
        return Note(f"{prefix}{self}", event=self.event, level=self.level, keys={**keys, **self.keys})


def debug(event: str, text: str, **keys: object) -> Note:
    """A note that only matters when looking for a fault."""
    return Note(text, event=event, level="debug", keys=keys)


def info(event: str, text: str, **keys: object) -> Note:
    """A note about normal operation."""
    return Note(text, event=event, keys=keys)


def warning(event: str, text: str, **keys: object) -> Note:
    """A note about something that did not work and was worked around."""
    return Note(text, event=event, level="warning", keys=keys)


def error(event: str, text: str, **keys: object) -> Note:
    """A note about something that did not work and stays so."""
    return Note(text, event=event, level="error", keys=keys)
