"""Rates by day and hour: which window applies when, and what is no window."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.config.schedules import Schedule, ScheduleWindow
from p2pmodel.errors import InvalidInput

MON, TUE, FRI, SAT, SUN = 0, 1, 4, 5, 6


def at(hour: int, minute: int = 0) -> int:
    return hour * 60 + minute


def test_a_window_is_of_its_days_and_hours():
    window = ScheduleWindow.parse("mon-fri 08:00-18:00=20MB")
    assert window == ScheduleWindow(frozenset(range(5)), at(8), at(18), 20_000_000)
    assert window.covers(MON, at(8))
    assert window.covers(FRI, at(17, 59))
    assert not window.covers(FRI, at(18))
    assert not window.covers(SAT, at(12))


def test_a_night_belongs_to_the_day_it_begins_on():
    night = ScheduleWindow.parse("fri 22:00-06:00=0")
    assert night.covers(FRI, at(22))
    assert night.covers(SAT, at(5, 59))
    assert not night.covers(SAT, at(6))
    assert not night.covers(FRI, at(5))
    assert ScheduleWindow.parse("sun 22:00-06:00=1").covers(MON, 0)


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
    assert ScheduleWindow.parse(text).days == days


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


@given(st.integers(0, 6), st.integers(0, 1439), st.integers(0, 1439), st.integers(0, 1439))
def test_a_window_and_its_complement_make_a_week(day: int, minute: int, start: int, end: int):
    if start == end:
        return
    every = frozenset(range(7))
    inside, outside = ScheduleWindow(every, start, end, 1), ScheduleWindow(every, end, start, 1)
    assert inside.covers(day, minute) != outside.covers(day, minute)


@given(st.sets(st.integers(0, 6)), st.integers(0, 1439), st.integers(1, 1440))
def test_a_window_covers_its_length(days: set[int], start: int, end: int):
    if start == end:
        return
    window = ScheduleWindow(frozenset(days), start, end, 1)
    covered = sum(window.covers(day, minute) for day in range(7) for minute in range(0, 1440, 1))
    assert covered == len(days) * ((end - start) % 1440 or 1440)
