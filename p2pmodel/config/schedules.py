"""Rate limits by day and hour, as in `mon-fri 08:00-18:00=20MB`. Times are minutes of a day, passed in."""

from dataclasses import dataclass, field

from p2pmodel.config.time_windows import TimeWindow
from p2pmodel.core.content.names import printable
from p2pmodel.core.sizes import parse_size
from p2pmodel.errors import InvalidInput

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
