"""Rate limits by day and hour, as in `mon-fri 08:00-18:00=20MB`.

Times are minutes of a day, passed in. A window that ends before it begins continues into the next day, and belongs to
the day it begins on.
"""

import re
from dataclasses import dataclass, field

from p2pmodel.core.content.names import printable
from p2pmodel.core.sizes import parse_size
from p2pmodel.errors import InvalidInput

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MINUTES = 24 * 60
_WINDOW = re.compile(r"(?:(?P<days>[a-z,-]+)\s+)?(?P<start>\d\d:\d\d)-(?P<end>\d\d:\d\d)=(?P<rate>.+)", re.IGNORECASE)
_HINT = "write [DAYS ]HH:MM-HH:MM=RATE, as in 'mon-fri 08:00-18:00=20MB'; 0 is no limit"


@dataclass(frozen=True, slots=True)
class ScheduleWindow:
    """`rate` bytes a second (0: no limit) on `days` (0 is Monday) from minute `start` to before minute `end`."""

    days: frozenset[int]
    start: int
    end: int
    rate: int
    text: str = field(default="", compare=False)
    """The window as the user wrote it."""

    @classmethod
    def parse(cls, text: str) -> "ScheduleWindow":
        """Parse `[DAYS ]HH:MM-HH:MM=RATE`; DAYS are days and spans of days, with commas. Raises InvalidInput."""
        match = _WINDOW.fullmatch(text.strip())
        if match is None:
            raise InvalidInput(f"'{printable(text, 60)}' is not a rate for a time of day", hint=_HINT)
        start, end = _minute(match["start"]), _minute(match["end"])
        if start in (end, _DAY_MINUTES):
            # It could mean never, or all day.
            raise InvalidInput(f"'{printable(text, 60)}' begins when it ends", hint="write 00:00-24:00 for all day")
        return cls(_days(match["days"] or "mon-sun"), start, end, parse_size(match["rate"]), text.strip())

    def covers(self, day: int, minute: int) -> bool:
        """Whether it applies on `day` at `minute`."""
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        return (day in self.days and minute >= self.start) or ((day - 1) % 7 in self.days and minute < self.end)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Windows; the first one that applies is used."""

    windows: tuple[ScheduleWindow, ...] = ()

    @classmethod
    def parse(cls, texts: tuple[str, ...]) -> "Schedule":
        """Parse one window from each text. Raises InvalidInput."""
        return cls(tuple(ScheduleWindow.parse(text) for text in texts))

    @property
    def texts(self) -> tuple[str, ...]:
        """The windows as the user wrote them."""
        return tuple(window.text for window in self.windows)

    def rate(self, otherwise: int, day: int, minute: int) -> int:
        """The limit on `day` at `minute`; `otherwise` where no window applies."""
        return next((window.rate for window in self.windows if window.covers(day, minute)), otherwise)


def _minute(text: str) -> int:
    hour, minute = int(text[:2]), int(text[3:])
    found = hour * 60 + minute
    if minute > 59 or found > _DAY_MINUTES:
        raise InvalidInput(f"{text} is not a time of day", hint=_HINT)
    return found


def _days(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.lower().split(","):
        first, _, last = part.partition("-")
        try:
            begin, end = _DAYS.index(first), _DAYS.index(last or first)
        except ValueError:
            raise InvalidInput(
                f"'{printable(part, 20)}' is not a day", hint="mon, tue, wed, thu, fri, sat, sun"
            ) from None
        found.update((begin + n) % 7 for n in range((end - begin) % 7 + 1))
    return frozenset(found)
