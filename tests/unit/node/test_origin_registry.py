"""Counters and states of a node's mirrors, collected from the origins of its fetches."""

import time

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.node.backends import FRESH, OriginRegistry
from p2pmodel.origin.failures import Failed
from p2pmodel.origin.mirrors.health import State
from p2pmodel.origin.mirrors.mirror import MirrorCounters
from p2pmodel.origin.origin import Origin

OFFICIAL = MirrorSettings(name="official", endpoint="https://hf.example")
OTHER = MirrorSettings(name="other", endpoint="https://other.example")


def origin(*mirrors: MirrorSettings) -> Origin:
    return Origin(mirrors, OriginSettings())


def test_counters_of_mirrors_are_added_up_and_stay() -> None:
    origins, first, second = OriginRegistry(), origin(OFFICIAL), origin(OFFICIAL, OTHER)
    with origins.watching(first):
        first._mirrors[0].received(5, 0.0)
        with origins.watching(second):
            second._mirrors[0].received(7, 0.0)
            second._mirrors[1].wasted(1)
            assert origins.counters() == {"official": MirrorCounters(12), "other": MirrorCounters(0, 1)}
    first._mirrors[0].received(95, 0.0)  # it is closed
    assert origins.counters() == {"official": MirrorCounters(12), "other": MirrorCounters(0, 1)}
    assert origins.statuses() == {}


def test_the_state_of_a_mirror_is_that_of_the_most_recent_origin() -> None:
    now = time.monotonic
    origins, first, second = OriginRegistry(), origin(OFFICIAL), origin(OFFICIAL)
    with origins.watching(second), origins.watching(first):
        second._mirrors[0].corrupted(second._clock.now())
        second._mirrors[0]._active_at = now() + 1
        assert origins.statuses()[OFFICIAL.endpoint].state is State.QUARANTINED
        first._mirrors[0]._active_at = now() + 2
        assert origins.statuses()[OFFICIAL.endpoint].state is State.UNUSED


def test_an_idle_origin_gives_no_states() -> None:
    origins = OriginRegistry(lambda: time.monotonic() + FRESH + 1)
    with origins.watching(origin(OFFICIAL)):
        assert origins.statuses() == {}


def test_failovers_and_quarantines_are_counted_once_each() -> None:
    one = origin(OFFICIAL)
    [mirror] = one._mirrors
    for _ in range(3):
        mirror.failed(Failed("timed out", slow=True), 0.0, no_bytes=True)  # side by side, so of one round
    assert one.counters()["official"].failovers == 1
    mirror.failed(Failed("timed out", slow=True), 1000.0, no_bytes=True)
    mirror.corrupted(1000.0)
    mirror.corrupted(1001.0)
    assert one.counters()["official"] == MirrorCounters(failovers=2, quarantines=1)
