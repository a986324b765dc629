"""The swarms of a tracker: which clients are listed, for how long, and to which others."""

import ipaddress
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from p2pmodel.coordinator.tracker.announces import MOST_ENDPOINTS, SLOW_PACE, AnnounceAnswer, TrackedSwarms
from p2pmodel.coordinator.tracker.sources import Role
from p2pmodel.coordinator.tracker.tracked_swarm import Announce, Counts, Event, is_loopback

HASH = b"h" * 20
INTERVAL = 30.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Rig:
    """Swarms under a hand-driven clock, and announces by number: client n lives at 10.0.0.n:6000."""

    def __init__(self, **bounds: int) -> None:
        self.clock = Clock()
        self.swarms = TrackedSwarms(self.clock, random.Random(1), interval=INTERVAL, **bounds)

    def announce(
        self,
        number: int,
        *,
        left: int | None = 1,
        event: Event = "",
        host: bytes | None = None,
        key: bytes = b"",
        port: int = 6000,
        numwant: int = 50,
        info_hash: bytes = HASH,
        zone: bytes = b"",
        role: Role = "",
    ) -> AnnounceAnswer:
        request = Announce(info_hash, peer_id(number), port, left, event, numwant, key, zone, role)
        return self.swarms.announce(request, host or bytes([10, 0, 0, number]))


def peer_id(number: int) -> bytes:
    return b"-XX0000-" + number.to_bytes(12, "big")


def numbers(answer: AnnounceAnswer) -> list[int]:
    return sorted(int.from_bytes(p.peer_id[8:], "big") for p in answer.peers)


def endpoints(answer: AnnounceAnswer) -> set[bytes]:
    return {e for p in answer.peers for e in p.endpoints}


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_answers_contain_the_other_clients_and_never_the_client_itself(rig: Rig) -> None:
    assert rig.announce(1).peers == ()
    assert numbers(rig.announce(2)) == [1]
    assert numbers(rig.announce(1)) == [2]


def test_counts_follow_the_announces(rig: Rig) -> None:
    rig.announce(1, left=0)
    rig.announce(2, left=None)
    assert rig.announce(3).counts == Counts(seeders=1, leechers=2, completed=0)
    assert rig.announce(3, left=0, event="completed").counts == Counts(2, 1, 1)
    assert rig.announce(1, event="stopped").counts == Counts(1, 1, 1)
    assert rig.swarms.counts(b"x" * 20) == Counts()


def test_a_stopped_client_is_removed_and_gets_no_peers(rig: Rig) -> None:
    rig.announce(1)
    rig.announce(2)
    assert rig.announce(1, event="stopped").peers == ()
    assert numbers(rig.announce(3)) == [2]


def test_a_swarm_without_peers_is_removed(rig: Rig) -> None:
    rig.announce(1, left=0, event="completed")
    rig.announce(1, event="stopped")
    assert rig.swarms.info_hashes() == ()
    assert rig.swarms.counts(HASH) == Counts()


def test_a_stop_from_a_stranger_lists_no_client(rig: Rig) -> None:
    rig.announce(1, event="stopped")
    assert rig.swarms.info_hashes() == ()


def test_one_address_takes_a_bounded_number_of_places_in_all_swarms() -> None:
    rig = Rig(max_address=3)
    hoarder = bytes([10, 9, 9, 9])
    for number in range(1, 6):
        rig.announce(number, host=hoarder, port=6000 + number, info_hash=bytes([number % 2]) * 20)
    assert sum(rig.swarms.counts(bytes([n]) * 20).leechers for n in (0, 1)) == 3
    rig.announce(7)
    assert 7 in numbers(rig.announce(8))
    rig.announce(1, host=hoarder, port=6001, info_hash=bytes([1]) * 20, event="stopped")
    rig.announce(5, host=hoarder, port=6005, info_hash=bytes([1]) * 20)
    assert sum(rig.swarms.counts(bytes([n]) * 20).leechers for n in (0, 1)) == 3


def test_a_seeder_gets_leechers_before_seeders(rig: Rig) -> None:
    for number in range(1, 11):
        rig.announce(number, left=0)
    for number in range(11, 16):
        rig.announce(number)
    assert numbers(rig.announce(1, left=0, numwant=5)) == [11, 12, 13, 14, 15]
    more = numbers(rig.announce(1, left=0, numwant=8))
    assert len(more) == 8
    assert set(more) > set(range(11, 16))
    assert 1 not in more


def test_a_leecher_gets_both_kinds(rig: Rig) -> None:
    rig.announce(1, left=0)
    rig.announce(2)
    assert numbers(rig.announce(3)) == [1, 2]


@pytest.mark.parametrize("leaseholder_left", [0, 1])
def test_sources_and_leaseholders_are_not_listed_to_each_other(rig: Rig, leaseholder_left: int) -> None:
    rig.announce(1, left=0, role="source")
    rig.announce(2, left=0, role="source")
    rig.announce(3)
    rig.announce(4, left=leaseholder_left, role="leaseholder")
    rig.announce(5, role="leaseholder")
    assert numbers(rig.announce(1, left=0, role="source")) == [2, 3]
    assert numbers(rig.announce(4, left=leaseholder_left, role="leaseholder")) == [3, 5]
    assert numbers(rig.announce(3)) == [1, 2, 4, 5]
    assert rig.announce(3).counts == Counts(2 + (leaseholder_left == 0), 2 + (leaseholder_left == 1))


def test_a_torrent_is_held_once_a_client_other_than_its_sources_is_complete(rig: Rig) -> None:
    assert not rig.swarms.is_held(HASH)
    rig.announce(1, left=0, role="source")
    rig.announce(2, role="leaseholder")
    assert not rig.swarms.is_held(HASH)
    rig.announce(2, left=0, event="completed", role="leaseholder")
    assert rig.swarms.is_held(HASH)
    rig.announce(2, event="stopped", role="leaseholder")
    assert not rig.swarms.is_held(HASH)


def test_a_client_may_change_its_role(rig: Rig) -> None:
    rig.announce(1, left=0, role="source")
    rig.announce(2, role="leaseholder")
    assert numbers(rig.announce(1, left=0)) == [2]
    assert numbers(rig.announce(2, role="leaseholder")) == [1]


@pytest.mark.parametrize("left", [0, 1])
def test_numwant_bounds_the_answer_and_choices_vary(rig: Rig, left: int) -> None:
    for number in range(1, 41):
        rig.announce(number, left=number % 2)
    seen = [numbers(rig.announce(50, left=left, numwant=10)) for _ in range(20)]
    assert {len(s) for s in seen} == {10}
    assert len({tuple(s) for s in seen}) > 10
    assert rig.announce(50, numwant=0).peers == ()


def test_in_a_large_swarm_a_client_gets_the_same_peers_again(rig: Rig) -> None:
    for number in range(1, 200):
        rig.announce(number, numwant=200)
    first = numbers(rig.announce(200, numwant=200))
    assert 20 <= len(first) <= 64
    rig.clock.now += INTERVAL
    assert numbers(rig.announce(200, left=0, numwant=200, event="completed")) == first


@pytest.mark.parametrize(
    ("left", "event", "seconds", "fresh"),
    [
        (10, "", INTERVAL, True),
        (9, "", INTERVAL, False),  # it got something
        (10, "", INTERVAL / 3, False),  # early announce
        (10, "paused", INTERVAL, False),  # it has all wanted files
        (0, "", INTERVAL, False),
        (None, "", INTERVAL, True),  # unknown
    ],
)
def test_a_client_without_progress_gets_other_peers(
    rig: Rig, left: int | None, event: Event, seconds: float, fresh: bool
) -> None:
    for number in range(1, 200):
        rig.announce(number)
    rig.announce(200, left=11)
    before = set(numbers(rig.announce(200, left=10, numwant=200)))
    rig.clock.now += seconds
    new = set(numbers(rig.announce(200, left=left, event=event, numwant=200))) - before
    assert bool(new) == fresh


def test_only_gateways_connect_zones(rig: Rig) -> None:
    for number, zone in enumerate([b"a", b"a", b"a", b"b", b"b"], 1):
        rig.announce(number, zone=zone)
    assert numbers(rig.announce(3, zone=b"a")) == [1, 2]
    assert numbers(rig.announce(1, zone=b"a")) == [2, 3, 4, 5]
    rig.announce(1, zone=b"a", event="stopped")
    assert numbers(rig.announce(3, zone=b"a")) == [2, 4, 5]


def test_choices_follow_from_the_random_source() -> None:
    def choices() -> list[list[int]]:
        rig = Rig()
        for number in range(1, 41):
            rig.announce(number)
        return [numbers(rig.announce(50, numwant=5)) for _ in range(5)]

    assert choices() == choices()


def test_a_client_that_keeps_the_pace_is_forgotten_after_two_intervals(rig: Rig) -> None:
    rig.announce(1, event="started")
    rig.clock.now += INTERVAL
    rig.announce(1)
    rig.clock.now += 2 * INTERVAL - 0.1
    assert numbers(rig.announce(2)) == [1]
    rig.clock.now += 0.1
    assert numbers(rig.announce(2)) == []


def test_a_client_of_unknown_pace_stays_for_twice_the_slow_pace(rig: Rig) -> None:
    rig.announce(1, event="started")
    rig.clock.now += 2 * SLOW_PACE - 0.1
    assert rig.swarms.counts(HASH).leechers == 1
    rig.clock.now += 0.1
    assert rig.swarms.counts(HASH).leechers == 0


def test_a_slow_client_stays_listed_between_its_announces(rig: Rig) -> None:
    for _ in range(5):
        rig.announce(1)
        rig.clock.now += SLOW_PACE
    assert numbers(rig.announce(2)) == [1]


def test_an_event_does_not_show_a_pace(rig: Rig) -> None:
    rig.announce(1, event="started")
    rig.clock.now += 5
    rig.announce(1, left=0, event="completed")
    rig.clock.now += SLOW_PACE
    assert numbers(rig.announce(2)) == [1]


def test_swarms_without_announces_are_swept_too(rig: Rig) -> None:
    rig.announce(1)
    rig.clock.now += 2 * SLOW_PACE
    rig.announce(2, info_hash=b"i" * 20)
    assert rig.swarms.info_hashes() == (b"i" * 20,)


def test_a_restarted_client_takes_over_its_endpoint(rig: Rig) -> None:
    rig.announce(1, left=0)
    answer = rig.announce(2, host=bytes([10, 0, 0, 1]))
    assert answer.peers == ()
    assert answer.counts == Counts(0, 1, 0)


def test_a_client_with_the_same_key_moves(rig: Rig) -> None:
    rig.announce(1, key=b"k")
    rig.announce(1, key=b"k", host=bytes([10, 9, 9, 9]), port=7000)
    answer = rig.announce(2)
    assert endpoints(answer) == {bytes([10, 9, 9, 9]) + (7000).to_bytes(2, "big")}
    assert answer.counts.leechers == 2


@pytest.mark.parametrize(("key", "impostor"), [(b"k", b"x"), (b"k", b""), (b"", b""), (b"", bytes([10, 0, 0, 1]))])
def test_a_client_moves_only_with_its_key(rig: Rig, key: bytes, impostor: bytes) -> None:
    rig.announce(1, key=key)
    rig.announce(1, key=impostor, host=bytes([10, 6, 6, 6]), event="stopped")
    rig.announce(1, key=impostor, host=bytes([10, 6, 6, 6]))
    assert bytes([10, 0, 0, 1]) + (6000).to_bytes(2, "big") in endpoints(rig.announce(2))


def test_a_client_with_two_address_families_counts_once(rig: Rig) -> None:
    six = bytes([0xFD]) + bytes(14) + b"\7"
    rig.announce(1, key=b"k")
    rig.announce(1, key=b"k", host=six)
    answer = rig.announce(2)
    assert answer.counts.leechers == 2
    assert endpoints(answer) == {h + (6000).to_bytes(2, "big") for h in (bytes([10, 0, 0, 1]), six)}
    assert rig.announce(1, key=b"k", event="stopped").counts.leechers == 1


def test_a_client_that_announces_from_several_addresses_is_listed_at_each(rig: Rig) -> None:
    other = bytes([10, 9, 9, 9])
    both = {h + (6000).to_bytes(2, "big") for h in (bytes([10, 0, 0, 1]), other)}
    for _ in range(3):
        rig.announce(1, key=b"k")
        rig.clock.now += 1
        rig.announce(1, key=b"k", host=other)
        rig.clock.now += INTERVAL - 1
        assert endpoints(rig.announce(2)) == both
    assert rig.announce(2).counts.leechers == 2
    rig.announce(1, key=b"k", host=other)
    assert endpoints(rig.announce(2)) == {other + (6000).to_bytes(2, "big")}, "the address that it left"


def test_a_client_is_listed_where_it_advertises(rig: Rig) -> None:
    rig.announce(1, key=b"k")
    advertised = (bytes([203, 0, 113, 7, 0x1A, 0xE1]), bytes([0xFD]) + bytes(14) + b"\7\x1a\xe1")
    announce = Announce(HASH, peer_id(1), 6000, key=b"k")
    rig.swarms.announce(announce, bytes([10, 0, 0, 1]), advertised)
    assert endpoints(rig.announce(2)) == set(advertised)


def test_link_local_endpoints_are_listed_to_none(rig: Rig) -> None:
    rig.announce(1, host=bytes([0xFE, 0x80]) + bytes(13) + b"\1")
    rig.announce(2, host=bytes([169, 254, 0, 1]))
    assert rig.announce(4).peers == ()


def test_loopback_endpoints_are_listed_to_loopback_only(rig: Rig) -> None:
    rig.announce(1, host=bytes([127, 0, 0, 9]))
    rig.announce(2, host=bytes(15) + b"\1")
    assert numbers(rig.announce(3, host=bytes([127, 0, 0, 3]))) == [1, 2]
    assert rig.announce(4).peers == ()


def test_of_a_client_with_both_only_the_reachable_endpoint_is_listed(rig: Rig) -> None:
    rig.announce(1, key=b"k")
    rig.announce(1, key=b"k", host=bytes(15) + b"\1")
    assert endpoints(rig.announce(4)) == {bytes([10, 0, 0, 1]) + (6000).to_bytes(2, "big")}


def test_in_a_full_swarm_newcomers_get_peers_but_are_not_listed() -> None:
    rig = Rig(max_swarm=3)
    for number in range(1, 6):
        answer = rig.announce(number)
    assert answer.counts.leechers == 3
    assert numbers(answer) == [1, 2, 3]
    assert numbers(rig.announce(1)) == [2, 3]


def test_all_swarms_together_are_bounded_and_space_is_reclaimed() -> None:
    rig = Rig(max_peers=3)
    for number in range(1, 6):
        rig.announce(number, info_hash=bytes([number]) * 20)
    assert len(rig.swarms.info_hashes()) == 3
    assert rig.announce(1, info_hash=b"\1" * 20).counts.leechers == 1
    rig.announce(1, info_hash=b"\1" * 20, event="stopped")
    rig.announce(9, info_hash=b"\x09" * 20)
    assert b"\x09" * 20 in rig.swarms.info_hashes()


@given(st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16), st.integers(0, 65535))
def test_loopback_means_the_same_with_and_without_port(host: bytes, port: int) -> None:
    assert is_loopback(host) == ipaddress.ip_address(host).is_loopback
    assert is_loopback(host + port.to_bytes(2, "big")) == is_loopback(host)


class SwarmsMachine(RuleBasedStateMachine):
    """Any history of announces keeps the invariants of the module's docstring."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(max_peers=12, max_swarm=6)

    @rule(
        number=st.integers(1, 9),
        host=st.sampled_from([bytes([10, 0, 0, n]) for n in range(4)] + [b"\xfd" + bytes(14) + b"\1"]),
        key=st.sampled_from([b"", b"a", b"b"]),
        left=st.sampled_from([None, 0, 1]),
        event=st.sampled_from(["", "started", "stopped", "completed"]),
        info_hash=st.sampled_from([b"a" * 20, b"b" * 20, b"c" * 20]),
    )
    def announce(
        self, *, number: int, host: bytes, key: bytes, left: int | None, event: Event, info_hash: bytes
    ) -> None:
        answer = self.rig.announce(number, host=host, key=key, left=left, event=event, info_hash=info_hash)
        listed = [e for p in answer.peers for e in p.endpoints]
        assert len(listed) == len(set(listed))
        assert host + (6000).to_bytes(2, "big") not in listed
        assert all(len(p.endpoints) <= MOST_ENDPOINTS for p in answer.peers)

    @rule(seconds=st.sampled_from([1.0, 29.0, 61.0, 700.0]))
    def wait(self, seconds: float) -> None:
        self.rig.clock.now += seconds

    @invariant()
    def bounded(self) -> None:
        counts = [self.rig.swarms.counts(h) for h in self.rig.swarms.info_hashes()]
        sizes = [c.seeders + c.leechers for c in counts]
        assert all(0 < size <= 6 for size in sizes)
        assert sum(sizes) <= 12
        assert self.rig.swarms._peers == sum(sizes)


TestSwarmsMachine = SwarmsMachine.TestCase


def test_leaseholders_of_two_zones_that_pull_from_each_other_over_http_are_not_listed_to_each_other(rig: Rig) -> None:
    for number, zone in ((1, b"a"), (2, b"a"), (3, b"b"), (4, b"b")):
        rig.announce(number, role="crossing", zone=zone)
    assert numbers(rig.announce(1, role="crossing", zone=b"a")) == [2]
    rig.announce(3, left=0, event="completed", role="crossing", zone=b"b")
    assert numbers(rig.announce(1, role="crossing", zone=b"a")) == [2, 3]
    rig.announce(5, role="source")
    assert numbers(rig.announce(2, role="crossing", zone=b"a")) == [1, 3]
