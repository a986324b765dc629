"""When seeders count as too slow while nothing else delivers."""

from p2pmodel.core.pace import TRICKLE
from p2pmodel.node.fetch.pieces.delivery_clock import DeliveryClock
from p2pmodel.node.fetch.pieces.seeder_trial import WITHIN, SeederTrial


def trial() -> SeederTrial:
    return SeederTrial(DeliveryClock(10.0, now=0.0))


def test_a_trickle_fails() -> None:
    seeders = trial()
    for second in range(5):
        seeders.look(second * TRICKLE // 2, float(second), silent=True)
    assert seeders.failed


def test_seeders_that_deliver_are_tried_on_and_on() -> None:
    seeders = trial()
    for second in range(30):
        seeders.look(second * TRICKLE * 2, float(second), silent=True)
        assert not seeders.failed
    for second in range(30, 36):
        seeders.look(60 * TRICKLE, float(second), silent=True)
    assert seeders.failed


def test_a_failure_lasts_as_long_as_the_silence() -> None:
    seeders = trial()
    seeders.look(0, 0.0, silent=True)
    seeders.look(0, WITHIN, silent=True)
    seeders.look(100 * TRICKLE, 2 * WITHIN, silent=True)
    assert seeders.failed
    seeders.look(100 * TRICKLE, 2 * WITHIN, silent=False)
    assert not seeders.failed
