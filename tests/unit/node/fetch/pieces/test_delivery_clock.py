"""When the sources of a transfer count as silent."""

from p2pmodel.core.pace import OF_THE_LIMIT, TRICKLE
from p2pmodel.node.fetch.pieces.delivery_clock import LEAST as BLOCK
from p2pmodel.node.fetch.pieces.delivery_clock import TRIAL, DeliveryClock, SeederTrial

LEAST = 10 * TRICKLE
"""What counts within ten seconds."""


def test_sources_are_silent_after_the_bound() -> None:
    clock = DeliveryClock(10.0, now=5.0)
    assert not clock.is_silent(14.9)
    assert clock.is_silent(15.0)


def test_bytes_of_any_source_postpone_that() -> None:
    clock = DeliveryClock(10.0, now=0.0)
    clock.received(LEAST, 0, 6.0)
    clock.received(LEAST, LEAST, 12.0)
    assert not clock.is_silent(21.9)
    assert clock.is_silent(22.0)


def test_a_trickle_does_not() -> None:
    clock = DeliveryClock(10.0, now=0.0)
    for second in range(10):
        clock.received(second * TRICKLE // 2, second * TRICKLE // 2, float(second))
    assert clock.is_silent(10.0)


def test_a_trickle_is_noticed_as_early_as_silence_the_next_time() -> None:
    clock, received, silent = DeliveryClock(8.0, now=0.0), 0, 0.0
    for tick in range(4 * 60):
        received += TRICKLE // 2 // 4
        clock.received(received, 0, tick / 4)
        silent += clock.is_silent(tick / 4) / 4
    assert silent >= 60 * 0.4


def test_a_download_limit_is_no_trickle() -> None:
    limit = 2 * TRICKLE
    clock = DeliveryClock(10.0, now=0.0, limit=lambda: limit)
    clock.received(10 * limit // OF_THE_LIMIT, 0, 9.0)
    assert not clock.is_silent(18.9)
    limit = 1000
    clock.received(10 * 2 * TRICKLE // OF_THE_LIMIT + BLOCK, 0, 18.5)
    assert not clock.is_silent(28.4)
    assert clock.is_silent(28.5)


def test_small_amounts_add_up() -> None:
    clock = DeliveryClock(10.0, now=0.0)
    for second in range(9):
        clock.received(second * LEAST // 8, 0, float(second))
    assert not clock.is_silent(17.9)


def test_once_silent_only_peers_end_it() -> None:
    clock = DeliveryClock(10.0, now=0.0)
    clock.received(0, 100 * LEAST, 10.0)
    assert clock.is_silent(11.0)
    clock.received(LEAST, 100 * LEAST, 12.0)
    assert not clock.is_silent(13.0)


def test_a_slow_link_of_its_own_is_no_reason_to_go_round() -> None:
    clock, silent = DeliveryClock(10.0, now=0.0), 0
    for second in range(300):
        # Peers and mirrors share the 20 kB/s of this node.
        clock.received(10_000 * second, 10_000 * second, float(second))
        silent += clock.is_silent(float(second))
    assert 30 <= silent <= 60
    # Once the link is quick again, silence is noticed as early as before.
    for second in range(300, 320):
        clock.received(1_000_000 * second, 3_000_000, float(second))
    assert not clock.is_silent(319.0)
    assert clock.is_silent(330.0)


def test_the_last_pieces_that_peers_have_and_do_not_send_are_waited_for_shortly() -> None:
    clock = DeliveryClock(10.0, now=0.0)
    for second in range(5):
        clock.received(1_000_000 * second, 0, float(second))
    clock.last = True
    for tick in range(16, 40):
        # The uplink of one slow peer, which all share.
        clock.received(4_000_000 + 2_500 * (tick - 16), 0, tick / 4)
        assert clock.is_silent(tick / 4) == (tick / 4 >= 4.0 + 3.0)
    clock.last = False
    assert not clock.is_silent(10.0)


def test_going_round_goes_on_while_it_gains() -> None:
    for peers, mirrors in ((0, 20_000), (8_000, 0), (5_000, 60_000)):
        clock = DeliveryClock(10.0, now=0.0)
        for second in range(60):
            clock.received(peers * second, mirrors * second if second >= 10 else 0, float(second))
            assert clock.is_silent(float(second)) == (second >= 10), (peers, mirrors, second)


def test_the_next_silence_is_noticed_earlier() -> None:
    clock, now, waits = DeliveryClock(8.0, now=0.0), 0.0, []
    for number in range(1, 7):
        since = now
        while not clock.is_silent(now):
            now += 0.25
        waits.append(now - since)
        clock.received(number * 8 * TRICKLE, 0, now)
    assert waits == [8.0, 4.0, 2.0, 2.0, 2.0, 2.0]


def test_counts_that_begin_anew_are_followed() -> None:
    clock = DeliveryClock(10.0, now=0.0)
    clock.received(100 * LEAST, 100 * LEAST, 1.0)
    clock.received(0, 0, 2.0)
    clock.received(LEAST, 0, 9.0)
    assert not clock.is_silent(18.0)


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
    seeders.look(0, TRIAL, silent=True)
    seeders.look(100 * TRICKLE, 2 * TRIAL, silent=True)
    assert seeders.failed
    seeders.look(100 * TRICKLE, 2 * TRIAL, silent=False)
    assert not seeders.failed
