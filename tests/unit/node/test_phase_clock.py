"""What each phase took."""

from p2pmodel.node.reporter import Phase, PhaseClock


def test_phases_are_timed_and_may_come_again() -> None:
    now = 10.0
    clock = PhaseClock("finding", now=lambda: now)
    steps: list[tuple[Phase, float]] = [("checking", 1), ("checking", 2), ("downloading", 4), ("checking", 8)]
    for phase, seconds in steps:
        now += seconds
        clock.enter(phase)
    now += 16
    assert clock.seconds("finding") == 1
    assert clock.seconds("checking") == 2 + 4 + 16
    assert clock.seconds("downloading") == 8
    assert clock.seconds("downloading", "finding") == 9
    assert clock.seconds("seeding") == clock.seconds() == 0
