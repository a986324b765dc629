"""The seconds of each stage."""

from p2pmodel.cluster.bootstrap.roster import StageClock


def test_each_second_belongs_to_one_stage() -> None:
    now = [10.0]
    clock = StageClock(lambda: now[0])
    assert clock.seconds == {}
    now[0] = 12.0  # before the first stage nothing is counted
    clock.enter("preflight")
    now[0] = 15.0
    clock.enter("fetching")
    now[0] = 16.0
    clock.enter("fetching")
    now[0] = 20.0
    assert clock.seconds == {"preflight": 3.0, "fetching": 5.0}
