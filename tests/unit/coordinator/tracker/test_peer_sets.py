"""Zones: peers of a zone are listed to each other, and other zones only to gateways."""

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmodel.coordinator.tracker.peer_sets import PeerRecord, PeerSets
from tests.support.graphs import components

PATIENCE = 75.0


class Rig:
    """One swarm; peer n is in zone `n // 1000`, so 2003 is the fourth of zone 2."""

    def __init__(self, seed: int = 1) -> None:
        self.sets = PeerSets(random.Random(seed))
        self.here: list[int] = []
        self.now = 0.0

    def come(
        self, *numbers: int, source: bool = False, left: int = 100, stalled: bool = False, apart: bool = False
    ) -> None:
        for number in numbers:
            self.sets.renew(name(number), PeerRecord(zone_of(number), source, left, stalled, apart), self.now)
            if number not in self.here:
                self.here.append(number)

    def go(self, *numbers: int) -> None:
        for number in numbers:
            self.sets.leave(name(number), self.now)
            self.here.remove(number)

    def listed(self, number: int, count: int = 1000) -> list[int]:
        return sorted(int(other) for other in self.sets.peers_for(name(number), count))

    def gateways(self, zone: int) -> list[int]:
        return [int(peer) for peer in self.sets.gateways(b"z%d" % zone)]

    def everything(self) -> dict[bytes, list[bytes]]:
        return {name(number): self.sets.peers_for(name(number), 1000) for number in self.here}

    def strays(self) -> list[tuple[int, int]]:
        """Pairs of two zones of which one is no gateway."""
        gateways = {gateway for number in self.here for gateway in self.gateways(number // 1000)}
        return [
            (number, other)
            for number in self.here
            for other in self.listed(number)
            if number // 1000 != other // 1000 and not {number, other} <= gateways
        ]


def name(number: int) -> bytes:
    return b"%06d" % number


def zone_of(number: int) -> bytes:
    return b"z%d" % (number // 1000)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_zone_keeps_to_itself_but_for_its_two_longest_serving(rig: Rig) -> None:
    rig.come(1000, 1001, 1002, 2000, 2001, 2002)
    assert (rig.gateways(1), rig.gateways(2)) == ([1000, 1001], [2000, 2001])
    assert rig.listed(1002) == [1000, 1001]
    assert rig.listed(1000) == [1001, 1002, 2000, 2001]
    assert rig.strays() == []


def test_one_zone_is_a_swarm_like_any_other(rig: Rig) -> None:
    rig.come(*range(40))
    assert rig.listed(7) == [number for number in range(40) if number != 7]


def test_a_peer_alone_in_its_zone_is_a_gateway(rig: Rig) -> None:
    rig.come(1000, 1001, 1002, 2000)
    assert rig.listed(2000) == [1000, 1001]
    rig.come(3000)
    assert rig.listed(3000) == [1000, 1001, 2000]


def test_a_departed_gateway_is_replaced_by_the_next_in_line(rig: Rig) -> None:
    rig.come(1000, 1001, 1002, 1003, 2000)
    rig.go(1000)
    assert rig.gateways(1) == [1001, 1002]
    rig.go(1001, 1002)
    assert rig.gateways(1) == [1003]
    assert rig.listed(2000) == [1003]


def test_a_peer_that_returns_is_the_last_in_line(rig: Rig) -> None:
    rig.come(1000, 1001, 1002)
    rig.go(1000)
    rig.come(1000)
    assert rig.gateways(1) == [1001, 1002]


@pytest.mark.parametrize("fault", [{"stalled": True}, {"left": 200}])
def test_a_gateway_without_progress_is_replaced_after_the_patience(rig: Rig, fault: dict[str, int]) -> None:
    rig.come(1000, 1001, 1002, 1003, 2000)
    rig.now += PATIENCE - 1
    rig.come(1001)
    rig.come(1000, **fault)
    assert rig.gateways(1) == [1000, 1001]
    rig.now += 1
    rig.come(1000, **fault)
    assert rig.gateways(1) == [1001, 1002]
    assert rig.listed(1000) == [1001, 1002, 1003]
    rig.come(1002, stalled=True)  # it has just begun
    assert rig.gateways(1) == [1001, 1002]


def test_a_silent_gateway_is_replaced_when_its_zone_stalls(rig: Rig) -> None:
    rig.come(1000, 1001, 1002, 1003, 2000)
    rig.now += 46
    rig.come(1001)
    rig.come(1003)
    assert rig.gateways(1) == [1000, 1001]
    rig.come(1003, stalled=True)
    assert rig.gateways(1) == [1001, 1002]
    assert rig.listed(2000) == [1001, 1002]
    rig.now += 46  # nor is the next in line
    rig.come(1003, stalled=True)
    assert 1003 in rig.gateways(1)
    assert 2000 in rig.listed(1003)


def test_a_complete_or_irreplaceable_gateway_stays(rig: Rig) -> None:
    rig.come(2000, source=True, left=0)
    rig.come(1000, 1001, 2001, 2002)
    rig.now += PATIENCE
    rig.come(2000, source=True, left=0)
    rig.come(1000, stalled=True)
    assert rig.gateways(1) == [1000, 1001]
    assert rig.gateways(2) == [2000, 2001]


def test_without_other_zones_gateways_stay(rig: Rig) -> None:
    rig.come(1000, 1001, 1002)
    rig.now += PATIENCE
    rig.come(1000, stalled=True)
    assert rig.gateways(1) == [1000, 1001]


def test_a_peer_that_moves_to_another_zone_leaves_the_old_one(rig: Rig) -> None:
    rig.come(1000, 1001, 2000)
    rig.sets.renew(name(1000), PeerRecord(b"z2"), rig.now)
    assert rig.gateways(1) == [1001]
    assert rig.gateways(2) == [2000, 1000]


def test_the_last_of_a_large_swarm_gets_more_peers_when_it_comes_again(rig: Rig) -> None:
    rig.come(*range(100))
    assert len(rig.listed(99)) == 25
    rig.come(99)
    assert len(rig.listed(99)) > 40


def test_a_stalled_peer_gets_other_peers(rig: Rig) -> None:
    rig.come(*range(500))
    before = rig.listed(7)
    rig.come(7)
    assert rig.listed(7) == before
    rig.come(7, stalled=True)
    assert len(set(rig.listed(7)) - set(before)) >= 4


def test_a_short_answer_gives_downloaders_a_source_and_sources_the_others(rig: Rig) -> None:
    rig.come(0, 1, source=True)
    rig.come(*range(2, 40))
    assert all({0, 1} & set(rig.listed(30, 5)) for _ in range(20))
    assert not any({0, 1} & set(rig.listed(0, 5)) for _ in range(20))
    assert {len(rig.listed(30, 5)) for _ in range(20)} == {5}
    assert len({tuple(rig.listed(30, 5)) for _ in range(20)}) > 10


def test_a_stranger_gets_peers_of_its_zone_or_else_gateways(rig: Rig) -> None:
    rig.come(1000, 1001, 1002, 2000)
    assert sorted(rig.sets.sample_for(b"z1", 9)) == [name(n) for n in (1000, 1001, 1002)]
    assert sorted(rig.sets.sample_for(b"elsewhere", 9)) == [name(n) for n in (1000, 1001, 2000)]
    assert rig.listed(1009) == []


def test_an_unknown_peer_may_leave(rig: Rig) -> None:
    rig.sets.leave(name(1), rig.now)
    assert rig.sets.sample_for(b"z0", 9) == []


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([(10, 3), (100, 4), (1000, 8), (300, 200)]),
    st.randoms(use_true_random=False),
    st.floats(0, 0.7),
)
def test_zones_hold_together_and_cross_by_gateways_alone(
    size: tuple[int, int], chance: random.Random, going: float
) -> None:
    count, zones = size
    rig = Rig(int(chance.random() * 1e9))
    for number in range(count):
        peer = int(chance.random() * zones) * 1000 + number
        rig.come(peer, source=not number)
        assert rig.listed(peer) or len(rig.here) == 1, "a newcomer starves"
        if chance.random() < going:
            rig.go(rig.here[int(chance.random() * len(rig.here))])
        if number % 50 == 0:
            rig.now += PATIENCE
            rig.come(*sample(chance, rig.here, 3), stalled=True)
    rig.come(*rig.here)  # the next announces
    assert rig.strays() == []
    assert len(components(rig.everything())) == min(1, len(rig.here))
    assert all(rig.listed(number) for number in rig.here if len(rig.here) > 1)
    assert max((len(rig.listed(number)) for number in rig.here), default=0) <= 2 * 64
    held = {number // 1000 for number in rig.here}
    assert all(1 <= len(rig.gateways(zone)) <= 2 for zone in held)


def sample(chance: random.Random, numbers: list[int], count: int) -> Iterable[int]:
    return [numbers[int(chance.random() * len(numbers))] for _ in range(count)] if numbers else []


def test_gateways_that_pull_over_http_are_listed_to_other_gateways_alone() -> None:
    rig = Rig()
    rig.come(0, 1, 1000, 1001, apart=True)
    rig.come(2000)
    assert rig.listed(0) == [1, 2000]
    assert rig.listed(2000) == [0, 1, 1000, 1001]
    rig.come(1000, left=0, source=True)
    assert rig.listed(0) == [1, 1000, 2000]
    rig.come(1, stalled=True)
    assert rig.listed(1) == [0, 1000, 1001, 2000]
