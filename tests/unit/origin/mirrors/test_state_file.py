import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.origin.mirrors.estimates import Quality
from p2pmodel.origin.mirrors.mirror import mirrors_of
from p2pmodel.origin.mirrors.state_file import FILE, recall, remember
from tests.support.virtual_clock import VirtualClock


def mirrors(*endpoints):
    return mirrors_of([MirrorSettings(name=e, endpoint=f"http://{e}") for e in endpoints])


def known(tmp_path, clock):
    (mirror,) = mirrors("a")
    recall(tmp_path, [mirror], clock)
    return mirror


def test_saved_estimates_are_loaded_and_age(tmp_path):
    clock, later = VirtualClock(), VirtualClock()
    (mirror,) = mirrors("a")
    mirror.recalled(
        Quality().connected(0.1, 1000.0).delivered(5e6, 8.0, 1000.0),
        slow=True,
        corruptions=1,
        quarantined_until=1600.0,
        reason="an HTML page instead of the file",
    )
    remember(tmp_path, [mirror], clock)
    later.time = 50.0  # another process: its clock began elsewhere
    again = known(tmp_path, later)
    assert again.quality.rate.known(50.0) == 5e6
    assert again.quality.first_byte.known(50.0) is None
    assert again.quality.rate.known(50.0 + 12 * 3600) is None
    assert again.health.slow
    assert again.health.quarantined(50.0 + 590)
    assert not again.health.quarantined(50.0 + 610)
    assert again.reason == "an HTML page instead of the file"


def test_entries_of_other_processes_are_preserved(tmp_path):
    remember(tmp_path, mirrors("a"), VirtualClock())
    remember(tmp_path, mirrors("b"), VirtualClock())
    assert set(json.loads((tmp_path / FILE).read_text())["mirrors"]) == {"http://a", "http://b"}
    assert [p.name for p in tmp_path.iterdir()] == [FILE], "no temporary file is left"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"version": 2, "mirrors": {"http://a": {"corruptions": 3}}}',
        b'{"version": 1, "mirrors": []}',
        b'{"version": 1, "mirrors": {"http://a": 3}}',
        b'{"version": 1, "mirrors": {"http://a": {"rate": [1e400, NaN, "x"], "corruptions": "3", "slow": []}}}',
        b'{"version": 1, "mirrors": {"http://a": {"rate": [-1, 1, 1], "connect": [1], "corruptions": -3, "slow": 1}}}',
    ],
)
def test_an_invalid_file_gives_no_estimates(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    mirror = known(tmp_path, VirtualClock())
    assert mirror.quality.rate.known(1000.0) is None
    assert mirror.health == mirrors("a")[0].health


@pytest.mark.parametrize("recorded", [0, 1e12, "x"])
def test_no_quarantine_outlasts_a_day_whatever_the_file_contains(tmp_path, recorded):
    entry = {"corruptions": 1, "quarantine": 1e12, "recorded": recorded}
    (tmp_path / FILE).write_text(json.dumps({"version": 1, "mirrors": {"http://a": entry}}))
    assert not known(tmp_path, VirtualClock()).health.quarantined(1000.0 + 86401)


class WallClock(VirtualClock):
    """A clock with a calendar of its own."""

    def __init__(self, wall: float) -> None:
        super().__init__()
        self.wall = wall

    def date(self):
        return datetime.fromtimestamp(self.wall, UTC)


@given(st.integers(1, 86400), st.integers(0, 10**6), st.integers(-(10**6), 10**6))
def test_a_clock_that_was_set_prolongs_no_quarantine(left, passed, jump):
    before, after = WallClock(1.5e9), WallClock(1.5e9 + passed + jump)
    (mirror,) = mirrors("a")
    mirror.recalled(Quality(), slow=False, corruptions=1, quarantined_until=before.now() + left, reason="")
    with tempfile.TemporaryDirectory() as folder:
        remember(Path(folder), [mirror], before)
        again = known(Path(folder), after).health
    ends = max(again.quarantined_until - after.now(), 0.0)
    assert ends <= left
    assert ends == pytest.approx(max(left - max(passed + jump, 0), 0), abs=0.01)


@given(st.integers(0, 10**6))
def test_an_estimate_from_the_future_counts_as_of_now(ahead):
    before, after = WallClock(1.5e9 + ahead), WallClock(1.5e9)
    (mirror,) = mirrors("a")
    mirror.recalled(
        Quality().delivered(5e6, 8.0, before.now()), slow=False, corruptions=0, quarantined_until=0.0, reason=""
    )
    with tempfile.TemporaryDirectory() as folder:
        remember(Path(folder), [mirror], before)
        rate = known(Path(folder), after).quality.rate
    assert rate.known(after.now()) == 5e6
    assert rate.known(after.now() + 12 * 3600) is None
