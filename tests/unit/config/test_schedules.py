"""Rates by day and hour: which window applies when, and what is no window."""

import pytest

from p2pmodel.config.schedules import Schedule, ScheduleWindow
from p2pmodel.config.time_windows import TimeWindow
from p2pmodel.errors import InvalidInput

MON, TUE, FRI, SAT, SUN = 0, 1, 4, 5, 6


def at(hour: int, minute: int = 0) -> int:
    return hour * 60 + minute


def test_a_window_is_of_its_days_and_hours():
    window = ScheduleWindow.parse("mon-fri 08:00-18:00=20MB")
    assert window == ScheduleWindow(TimeWindow(frozenset(range(5)), at(8), at(18)), 20_000_000)
    assert window.window.covers(MON, at(8))
    assert window.window.covers(FRI, at(17, 59))
    assert not window.window.covers(FRI, at(18))
    assert not window.window.covers(SAT, at(12))


def test_a_night_belongs_to_the_day_it_begins_on():
    night = ScheduleWindow.parse("fri 22:00-06:00=0").window
    assert night.covers(FRI, at(22))
    assert night.covers(SAT, at(5, 59))
    assert not night.covers(SAT, at(6))
    assert not night.covers(FRI, at(5))
    assert ScheduleWindow.parse("sun 22:00-06:00=1").window.covers(MON, 0)


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("00:00-24:00=1", {0, 1, 2, 3, 4, 5, 6}),
        ("sat,sun 00:00-24:00=1", {5, 6}),
        ("SAT-Mon 00:00-24:00=1", {5, 6, 0}),
        ("mon,wed-fri  00:00-24:00=1", {0, 2, 3, 4}),
    ],
)
def test_days(text: str, days: set[int]):
    assert ScheduleWindow.parse(text).window.days == days


@pytest.mark.parametrize(
    "text",
    [
        *("", "08:00-18:00", "8:00-18:00=1", "08:00-18:60=1", "08:00-24:01=1", "25:00-26:00=1", "08:00-08:00=1"),
        *("00:00-00:00=1", "08:00-18:00=fast", "08:00-18:00=-1", "someday 08:00-18:00=1", "mon- 08:00-18:00=x"),
        *("mon-fri-sat 08:00-18:00=1", ", 08:00-18:00=1", "24:00-00:00=1"),
    ],
)
def test_invalid_windows_are_refused(text: str):
    with pytest.raises(InvalidInput):
        ScheduleWindow.parse(text)


def test_the_first_window_that_applies_counts():
    schedule = Schedule.parse(("mon 12:00-13:00=0", "mon-fri 08:00-18:00=5"))
    assert schedule.rate(9, MON, at(12, 30)) == 0
    assert schedule.rate(9, TUE, at(12, 30)) == 5
    assert schedule.rate(9, MON, at(13)) == 5
    assert schedule.rate(9, SUN, at(12, 30)) == 9
    assert Schedule().rate(9, MON, 0) == 9
