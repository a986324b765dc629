"""Hours of the week, as in `mon-fri 22:00-06:00`: when they begin and end in a time zone, and rate limits by them.

A window that ends before it begins continues into the next day, and belongs to the day it begins on. It follows the
clock on the wall: hours that a change to summer time leaves out do not come, those that it repeats come twice.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from p2pmodel.core.content.names import printable
from p2pmodel.core.sizes import parse_size
from p2pmodel.errors import InvalidInput

HINT = "write [DAYS ]HH:MM-HH:MM, as in 'mon-fri 22:00-06:00'"

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MINUTES = 24 * 60
_WINDOW = re.compile(r"(?:(?P<days>[a-z,-]+)\s+)?(?P<start>\d\d:\d\d)-(?P<end>\d\d:\d\d)", re.IGNORECASE)
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,2}")
_HORIZON = 16
"""Days in which every window begins or ends once: one of a single day may fall into hours that are left out."""


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """From minute `start` to before minute `end` of `days` (0 is Monday)."""

    days: frozenset[int]
    start: int
    end: int

    @classmethod
    def parse(cls, text: str, *, hint: str = HINT) -> "TimeWindow":
        """Parse `[DAYS ]HH:MM-HH:MM`; DAYS are days and spans of days, with commas. Raises InvalidInput with `hint`."""
        match = _WINDOW.fullmatch(text.strip())
        if match is None:
            raise InvalidInput(f"'{printable(text, 60)}' is not a time of day", hint=hint)
        start, end = _minute(match["start"], hint), _minute(match["end"], hint)
        if start in (end, _DAY_MINUTES):
            # It could mean never, or all day.
            raise InvalidInput(f"'{printable(text, 60)}' begins when it ends", hint="write 00:00-24:00 for all day")
        return cls(_days(match["days"] or "mon-sun"), start, end)

    def covers(self, day: int, minute: int) -> bool:
        """Whether it applies on `day` at `minute`."""
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        return (day in self.days and minute >= self.start) or ((day - 1) % 7 in self.days and minute < self.end)


@dataclass(frozen=True, slots=True)
class ZonedWindow:
    """A window in a time zone; None: that of this machine. Times are seconds since 1970."""

    window: TimeWindow
    zone: ZoneInfo | None = None

    def is_open(self, at: float) -> bool:
        """Whether it applies at this time."""
        local = datetime.fromtimestamp(at, self.zone)
        return self.window.covers(local.weekday(), local.hour * 60 + local.minute)

    def next_change(self, at: float) -> float | None:
        """When it begins or ends next, after `at`; None if it never does."""
        now = self.is_open(at)
        later = sorted(instant for instant in self._instants(at) if instant > at)
        return next((instant for instant in later if self.is_open(instant) != now), None)

    def _instants(self, at: float) -> Iterator[float]:
        """Every time at which it may begin or end: its hours on each day, and the changes of the zone's offset."""
        yield from self._offset_changes(at)
        today = datetime.fromtimestamp(at, self.zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
        for day in range(-1, _HORIZON):
            for minute in (self.window.start, self.window.end):
                wall = today + timedelta(days=day, minutes=minute)
                for fold in (0, 1):
                    yield wall.replace(tzinfo=self.zone, fold=fold).timestamp()

    def _offset_changes(self, at: float) -> Iterator[float]:
        step = 6 * 3600
        for begin in range(int(at), int(at) + _HORIZON * 86400, step):
            before, end = begin, begin + step
            if self._offset(before) == self._offset(end):
                continue
            while end - before > 1:
                middle = (before + end) // 2
                if self._offset(middle) == self._offset(begin):
                    before = middle
                else:
                    end = middle
            yield float(end)

    def _offset(self, at: float) -> float:
        local = datetime.fromtimestamp(at, self.zone)
        return local.replace(tzinfo=UTC, fold=0).timestamp() - at


def time_zone(name: str) -> ZoneInfo:
    """The time zone `Area/City`, or `UTC`. Raises InvalidInput for an unknown one."""
    try:
        if _ZONE.fullmatch(name):
            return ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        pass
    raise InvalidInput(f"'{printable(name, 60)}' is not a known time zone", hint="write one such as Asia/Shanghai")


def _minute(text: str, hint: str) -> int:
    hour, minute = int(text[:2]), int(text[3:])
    found = hour * 60 + minute
    if minute > 59 or found > _DAY_MINUTES:
        raise InvalidInput(f"{text} is not a time of day", hint=hint)
    return found


def _days(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.lower().split(","):
        first, _, last = part.partition("-")
        try:
            begin, end = _DAYS.index(first), _DAYS.index(last or first)
        except ValueError:
            raise InvalidInput(f"'{printable(part, 20)}' is not a day", hint=", ".join(_DAYS)) from None
        found.update((begin + n) % 7 for n in range((end - begin) % 7 + 1))
    return frozenset(found)


_HINT = "write [DAYS ]HH:MM-HH:MM=RATE, as in 'mon-fri 08:00-18:00=20MB'; 0 is no limit"


@dataclass(frozen=True, slots=True)
class ScheduleWindow:
    """`rate` bytes a second (0: no limit) in `window`."""

    window: TimeWindow
    rate: int
    text: str = field(default="", compare=False)
    """The window as the user wrote it."""

    @classmethod
    def parse(cls, text: str) -> "ScheduleWindow":
        """Parse `[DAYS ]HH:MM-HH:MM=RATE`; DAYS are days and spans of days, with commas. Raises InvalidInput."""
        hours, sign, rate = text.strip().partition("=")
        if not sign or not rate:
            raise InvalidInput(f"'{printable(text, 60)}' is not a rate for a time of day", hint=_HINT)
        return cls(TimeWindow.parse(hours, hint=_HINT), parse_size(rate), text.strip())


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
        return next((each.rate for each in self.windows if each.window.covers(day, minute)), otherwise)
