"""What a node knows of its mirrors by the origins of its fetches."""

import time

from p2pmodel.config.settings import MirrorSettings, OriginSettings
from p2pmodel.node.origin_registry import FRESH, OriginRegistry
from p2pmodel.origin.mirrors.health import State
from p2pmodel.origin.mirrors.standing import MirrorCounters
from p2pmodel.origin.origin import Origin

OFFICIAL = MirrorSettings(name="official", endpoint="https://hf.example")
OTHER = MirrorSettings(name="other", endpoint="https://other.example")


def origin(*mirrors: MirrorSettings) -> Origin:
    return Origin(mirrors, OriginSettings())


def test_what_mirrors_did_is_added_up_and_kept() -> None:
    origins, first, second = OriginRegistry(), origin(OFFICIAL), origin(OFFICIAL, OTHER)
    with origins.watching(first):
        first._mirrors[0].received = 5
        with origins.watching(second):
            second._mirrors[0].received, second._mirrors[1].wasted = 7, 1
            assert origins.tallies() == {"official": MirrorCounters(12), "other": MirrorCounters(0, 1)}
    first._mirrors[0].received = 100  # it is closed
    assert origins.tallies() == {"official": MirrorCounters(12), "other": MirrorCounters(0, 1)}
    assert origins.standings() == {}


def test_how_a_mirror_is_seen_is_what_the_origin_says_that_asked_last() -> None:
    now = time.monotonic
    origins, first, second = OriginRegistry(), origin(OFFICIAL), origin(OFFICIAL)
    with origins.watching(second), origins.watching(first):
        second._mirrors[0].lied(second._clock.now())
        second._mirrors[0]._heard = now() + 1
        assert origins.standings()[OFFICIAL.endpoint].state is State.QUARANTINED
        first._mirrors[0]._heard = now() + 2
        assert origins.standings()[OFFICIAL.endpoint].state is State.HEALTHY


def test_an_origin_that_asks_nobody_any_more_says_nothing() -> None:
    origins = OriginRegistry(lambda: time.monotonic() + FRESH + 1)
    with origins.watching(origin(OFFICIAL)):
        assert origins.standings() == {}


def test_failovers_and_quarantines_are_counted_once_each() -> None:
    one = origin(OFFICIAL)
    [mirror] = one._mirrors
    for _ in range(3):
        mirror.failed(0.0, dry=True, wait=None, slow=True)  # side by side, so of one round
    assert one.tallies()["official"].failovers == 1
    mirror.failed(1000.0, dry=True, wait=None, slow=True)
    mirror.lied(1000.0)
    mirror.lied(1001.0)
    assert one.tallies()["official"] == MirrorCounters(failovers=2, quarantines=1)
