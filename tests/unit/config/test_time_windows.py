"""Hours of the week in time zones: over midnight, and over the changes to and from summer time."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from p2pmodel.config.time_windows import Schedule, ScheduleWindow, TimeWindow, ZonedWindow, time_zone
from p2pmodel.errors import InvalidInput

EVERY_DAY = frozenset(range(7))
ZONES = ("UTC", "Asia/Shanghai", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")
YEAR = range(int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()), int(datetime(2027, 1, 1, tzinfo=UTC).timestamp()), 60)
MINUTES = st.integers(0, 1439)


def at(*parts: int, zone: str = "UTC", fold: int = 0) -> float:
    year, month, day, hour, minute = parts
    return datetime(year, month, day, hour, minute, tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def zoned(text: str, zone: str) -> ZonedWindow:
    return ZonedWindow(TimeWindow.parse(text), time_zone(zone))


@given(st.integers(0, 6), MINUTES, MINUTES, MINUTES)
def test_a_window_and_its_complement_make_a_week(day: int, minute: int, start: int, end: int):
    if start == end:
        return
    inside, outside = TimeWindow(EVERY_DAY, start, end), TimeWindow(EVERY_DAY, end, start)
    assert inside.covers(day, minute) != outside.covers(day, minute)


@given(st.sets(st.integers(0, 6)), MINUTES, st.integers(1, 1440))
def test_a_window_covers_its_length(days: set[int], start: int, end: int):
    if start == end:
        return
    window = TimeWindow(frozenset(days), start, end)
    covered = sum(window.covers(day, minute) for day in range(7) for minute in range(0, 1440, 1))
    assert covered == len(days) * ((end - start) % 1440 or 1440)


@given(st.sampled_from(ZONES), st.sampled_from(YEAR), MINUTES, MINUTES, st.sampled_from([EVERY_DAY, frozenset({6})]))
@settings(deadline=None, max_examples=40)
@example("Europe/Berlin", int(at(2026, 3, 28, 12, 0)), 150, 160, frozenset({6}))  # the hours that are left out
@example("Europe/Berlin", int(at(2026, 10, 24, 23, 0)), 150, 160, EVERY_DAY)  # the hours that come twice
@example("Australia/Lord_Howe", int(at(2026, 4, 4, 10, 0)), 100, 110, EVERY_DAY)  # half an hour
def test_the_next_change_is_the_first_minute_with_another_state(
    zone: str, now: int, start: int, end: int, days: frozenset[int]
):
    if start == end:
        return
    window = ZonedWindow(TimeWindow(days, start, end), ZoneInfo(zone))
    state, found = window.is_open(now), window.next_change(now)
    assert found is not None
    assert window.is_open(found) != state
    bound = min(int(found), now + 2 * 86400)
    assert all(window.is_open(minute) == state for minute in range(bound - bound % 60 - 60, now, -60))


@given(st.sampled_from(ZONES), st.sampled_from(YEAR), MINUTES, MINUTES)
def test_a_window_is_what_the_clock_on_the_wall_says(zone: str, now: int, start: int, end: int):
    if start == end:
        return
    window = ZonedWindow(TimeWindow(EVERY_DAY, start, end), ZoneInfo(zone))
    wall = datetime.fromtimestamp(now, UTC).astimezone(ZoneInfo(zone)).strftime("%H:%M")
    first, last = (f"{minute // 60:02}:{minute % 60:02}" for minute in (start, end))
    assert window.is_open(now) == (first <= wall < last if first < last else wall >= first or wall < last)


def test_a_night_in_shanghai():
    night = zoned("22:00-06:00", "Asia/Shanghai")
    assert night.is_open(at(2026, 5, 1, 14, 0))
    assert not night.is_open(at(2026, 5, 1, 13, 59))
    assert night.next_change(at(2026, 5, 1, 15, 0)) == at(2026, 5, 1, 22, 0)
    assert night.next_change(at(2026, 5, 1, 22, 0)) == at(2026, 5, 2, 14, 0)


def test_the_night_to_summer_time_is_an_hour_shorter_and_that_from_it_an_hour_longer():
    night = zoned("22:00-06:00", "Europe/Berlin")
    for begin, hours in (at(2026, 3, 28, 21, 0), 7), (at(2026, 10, 24, 20, 0), 9), (at(2026, 6, 1, 20, 0), 8):
        assert not night.is_open(begin - 60)
        assert night.is_open(begin)
        assert night.next_change(begin) == begin + hours * 3600


def test_hours_that_are_left_out_do_not_come_and_repeated_ones_come_twice():
    window = zoned("02:15-02:45", "Europe/Berlin")
    left_out = window.next_change(at(2026, 3, 28, 12, 0))
    assert left_out == at(2026, 3, 30, 0, 15)
    first = window.next_change(at(2026, 10, 24, 23, 0))
    assert first == at(2026, 10, 25, 2, 15, zone="Europe/Berlin")
    closes = window.next_change(first)
    assert closes is not None
    assert window.next_change(closes) == at(2026, 10, 25, 2, 15, zone="Europe/Berlin", fold=1)


def test_a_window_that_begins_in_hours_that_are_left_out_begins_after_them():
    assert zoned("02:30-05:00", "Europe/Berlin").next_change(at(2026, 3, 29, 0, 0)) == at(2026, 3, 29, 1, 0)


def test_all_day_never_changes():
    assert zoned("00:00-24:00", "UTC").next_change(at(2026, 5, 1, 0, 0)) is None


@given(st.sampled_from(YEAR))
@settings(max_examples=10)
def test_without_a_zone_the_time_is_that_of_this_machine(now: int):
    local = datetime.fromtimestamp(now).astimezone()
    minute = local.hour * 60 + local.minute
    window = ZonedWindow(TimeWindow(EVERY_DAY, minute, (minute + 1) % 1440))
    assert window.is_open(now)
    assert not window.is_open(now - 60)


@pytest.mark.parametrize("name", ["", "Nowhere", "Mars/Olympus", "../etc/passwd", "/etc/localtime", "Asia", "a\n"])
def test_what_is_no_zone_is_refused(name: str):
    with pytest.raises(InvalidInput, match="not a known time zone"):
        time_zone(name)


MON, TUE, FRI, SAT, SUN = 0, 1, 4, 5, 6


def minute_of_day(hour: int, minute: int = 0) -> int:
    return hour * 60 + minute


def test_a_window_is_of_its_days_and_hours():
    window = ScheduleWindow.parse("mon-fri 08:00-18:00=20MB")
    assert window == ScheduleWindow(TimeWindow(frozenset(range(5)), minute_of_day(8), minute_of_day(18)), 20_000_000)
    assert window.window.covers(MON, minute_of_day(8))
    assert window.window.covers(FRI, minute_of_day(17, 59))
    assert not window.window.covers(FRI, minute_of_day(18))
    assert not window.window.covers(SAT, minute_of_day(12))


def test_a_night_belongs_to_the_day_it_begins_on():
    night = ScheduleWindow.parse("fri 22:00-06:00=0").window
    assert night.covers(FRI, minute_of_day(22))
    assert night.covers(SAT, minute_of_day(5, 59))
    assert not night.covers(SAT, minute_of_day(6))
    assert not night.covers(FRI, minute_of_day(5))
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
    assert schedule.rate(9, MON, minute_of_day(12, 30)) == 0
    assert schedule.rate(9, TUE, minute_of_day(12, 30)) == 5
    assert schedule.rate(9, MON, minute_of_day(13)) == 5
    assert schedule.rate(9, SUN, minute_of_day(12, 30)) == 9
    assert Schedule().rate(9, MON, 0) == 9
