"""Crossings: each zone takes each piece once, over all its nodes, and whatever fails is asked of others."""

import random

from p2pmodel.coordinator.leases.crossings import (
    AVOIDED_FOR,
    CUT_AFTER,
    FEW,
    LATE_AT_LEAST,
    MOST_OUT,
    Crossings,
    ZonedLeases,
)
from p2pmodel.coordinator.leases.demand import Crossing, Demand
from p2pmodel.coordinator.leases.leases import Leases
from p2pmodel.coordinator.leases.peer import OUT_FOR, SILENCE
from p2pmodel.core.content.bitfield import bits_of

COUNT = 12
ALL = (1 << COUNT) - 1


class Zones:
    """Zones of nodes that take what the coordinator says, one message after the other."""

    def __init__(self, **zones: int) -> None:
        self.crossings = Crossings(COUNT, random.Random(1))
        self.now = 0.0
        self.held: dict[str, int] = {}
        self.zone_of: dict[str, str] = {}
        for zone, nodes in zones.items():
            for number in range(nodes):
                name = f"{zone}{number}"
                self.held[name], self.zone_of[name] = 0, zone
                self.crossings.enter(name, zone, f"{name}:1")
        self.tell()

    def tell(self, *names: str, unreachable: tuple[str, ...] = ()) -> None:
        for name in names or tuple(self.held):
            near = 0
            for other, zone in self.zone_of.items():
                near |= self.held.get(other, 0) if zone == self.zone_of[name] else 0
            demand = Demand(ALL & ~near, from_seeders=True, want=4, held=self.held[name], unreachable=unreachable)
            self.crossings.update(name, demand, self.now)

    def give(self, name: str, *pieces: int) -> None:
        self.held[name] |= bits_of(pieces)
        self.tell()

    def grants(self) -> dict[str, tuple[Crossing, ...]]:
        return {name: given for name, given in self.crossings.grant(self.now) if given}

    def work(self, rounds: int = 50) -> list[tuple[str, int, str]]:
        """Every crossing is pulled at once; returns the nodes, pieces and holders."""
        done = []
        for _ in range(rounds):
            pulled = [(name, each.piece, each.address[:-2]) for name, all_ in self.grants().items() for each in all_]
            for name, piece, _ in pulled:
                self.held[name] |= 1 << piece
            done += pulled
            self.now += 0.1
            self.tell()
        return done


def test_each_zone_takes_each_piece_once_over_all_its_nodes() -> None:
    zones = Zones(a=3, b=3, c=3)
    zones.give("a0", *range(COUNT))
    done = zones.work()
    for zone in "bc":
        inwards = [(name, piece) for name, piece, _ in done if name.startswith(zone)]
        assert sorted(piece for _, piece in inwards) == list(range(COUNT))
        assert len({name for name, _ in inwards}) == 3
    assert not [name for name, _, _ in done if name.startswith("a")]


def test_zones_that_have_got_a_piece_pass_it_on() -> None:
    zones = Zones(**dict.fromkeys("abcdefghijkl", 1))
    zones.give("a0", 0)
    assert len(zones.grants()) == MOST_OUT
    assert {holder for _, _, holder in zones.work()} > {"a0"}


def test_pieces_of_busy_nodes_do_not_hide_those_that_others_can_send() -> None:
    count = 60
    crossings = Crossings(count, random.Random(1))
    last = 1 << count - 1
    everything = 2 * last - 1
    for name, held in {"a0": everything ^ last, "a1": last}.items():
        crossings.enter(name, "a", f"{name}:1")
        crossings.update(name, Demand(0, from_seeders=True, held=held), 0.0)
    for number in range(MOST_OUT + 5):
        crossings.enter(f"b{number}", f"b{number}", f"b{number}:1")
        crossings.update(f"b{number}", Demand(everything, from_seeders=True), 0.0)
    pulled = [(each.piece, each.address) for _, given in crossings.grant(0.0) for each in given]
    assert len([address for _, address in pulled if address == "a0:1"]) == MOST_OUT
    assert (count - 1, "a1:1") in pulled


def test_nodes_of_one_zone_pull_nothing_from_each_other() -> None:
    zones = Zones(a=2)
    zones.give("a0", 1, 2)
    assert not zones.grants()
    assert not zones.crossings.elsewhere("a1")


def test_what_another_zone_has_or_what_crossed_needs_no_lease() -> None:
    zones = Zones(a=1, b=2)
    zones.give("a0", 3)
    assert zones.crossings.elsewhere("b0") == 1 << 3
    zones.work(1)
    assert zones.crossings.elsewhere("b1") == 1 << 3
    zones.now += OUT_FOR + 2
    zones.tell()
    zones.grants()
    assert not zones.crossings.elsewhere("b1")


def test_a_node_that_does_not_deliver_is_not_asked_again_for_a_while() -> None:
    zones = Zones(a=FEW + 1, b=1)
    zones.held["a1"] = 1
    zones.give("a0", 0)
    (crossing,) = zones.grants()["b0"]
    zones.tell("b0", unreachable=(crossing.address,))
    for _ in range(50):  # nodes are looked at in random order
        zones.tell("b0")
        asked = zones.grants()
    (other,) = asked["b0"]
    assert {crossing.address, other.address} == {"a0:1", "a1:1"}
    assert zones.crossings.elsewhere("b0") == 1


def test_zones_that_are_cut_off_from_each_other_get_leases_until_they_are_tried_again() -> None:
    zones = Zones(a=1, b=1)
    zones.give("a0", 0)
    zones.grants()
    zones.tell("b0", unreachable=("a0:1",))
    assert not zones.grants()
    assert not zones.crossings.elsewhere("b0")
    zones.now += AVOIDED_FOR + 1
    zones.tell()
    assert zones.grants()["b0"]


def test_zones_that_have_just_sent_something_do_not_count_as_cut_off() -> None:
    zones = Zones(a=1, b=2)
    zones.give("a0", 0, 1)
    pulls = zones.grants()
    zones.give("b0", pulls["b0"][0].piece)
    zones.tell("b1", unreachable=("a0:1",))
    assert zones.crossings.elsewhere("b1") == 0b11
    zones.now += CUT_AFTER + 1
    zones.tell()
    zones.grants()
    assert zones.crossings.elsewhere("b1") == 1 << pulls["b0"][0].piece


def test_the_crossings_of_a_node_that_dies_go_to_another_one() -> None:
    zones = Zones(a=1, b=2)
    zones.give("a0", 0)
    (dead,) = zones.grants()
    zones.crossings.leave(dead)
    del zones.held[dead]
    (other,) = zones.grants()
    assert {dead, other} == {"b0", "b1"}


def test_a_silent_node_counts_as_gone() -> None:
    zones = Zones(a=1, b=2)
    zones.give("a0", 0)
    (silent,) = zones.grants()
    del zones.held[silent]
    zones.now += SILENCE + 1.5
    zones.tell()
    (other,) = zones.grants()
    assert other != silent


def test_a_node_that_lacked_something_is_not_asked_after_it_left() -> None:
    zones = Zones(a=2, b=1)
    zones.give("a0", *range(4))
    zones.crossings.leave("a0")
    del zones.held["a0"]
    assert not zones.grants()


def test_a_node_that_lacked_nothing_is_asked_until_it_does_not_answer() -> None:
    zones = Zones(a=2, b=1)
    zones.give("a0", *range(COUNT))
    zones.crossings.leave("a0")
    del zones.held["a0"]
    (crossing, *_) = zones.grants()["b0"]
    zones.tell("b0", unreachable=(crossing.address,))
    assert not zones.grants()
    assert not zones.crossings.elsewhere("b0")


def test_a_node_that_left_is_forgotten_after_a_while() -> None:
    zones = Zones(a=1, b=1)
    zones.give("a0", *range(COUNT))
    zones.crossings.leave("a0")
    del zones.held["a0"]
    zones.now += OUT_FOR + 2
    zones.tell()
    assert not zones.grants()
    assert "a0" not in zones.crossings


def test_a_late_crossing_goes_to_the_next_node() -> None:
    zones = Zones(a=1, b=2)
    zones.give("a0", 0)
    (first,) = zones.grants()
    for _ in range(int(LATE_AT_LEAST) + 3):
        zones.now += 1
        zones.tell()
    (second,) = zones.grants()
    assert second != first


def test_a_slow_link_gets_few_requests_at_a_time() -> None:
    zones = Zones(a=2, b=3)
    zones.give("a0", *range(COUNT))
    for _ in range(COUNT):
        pulled = [(name, each.piece) for name, all_ in zones.grants().items() for each in all_]
        assert len(pulled) <= 3
        zones.now += 4
        for name, piece in pulled[:1]:
            zones.held[name] |= 1 << piece
        zones.tell()


def test_a_cluster_with_zones_pulls_each_piece_from_the_source_once() -> None:
    leases = ZonedLeases(Leases(COUNT, COUNT), Crossings(COUNT, random.Random(2)))
    held = {f"{zone}{number}": 0 for zone in "ab" for number in range(2)}
    for name in held:
        leases.enter(name, name[0], f"{name}:1")
    now, leased, crossed = 0.0, list[int](), list[tuple[str, int]]()
    for _ in range(100):
        now += 0.1
        for name, own in held.items():
            near = held[f"{name[0]}0"] | held[f"{name[0]}1"]
            leases.update(name, Demand(ALL & ~near, from_seeders=True, want=2, held=own), now)
        for name, grant in leases.grant(now).items():
            assert grant.crossings is not None
            leased += grant.pieces
            crossed += [(name[0], each.piece) for each in grant.crossings]
            held[name] |= bits_of([*grant.pieces, *(each.piece for each in grant.crossings)])
    assert sorted(leased) == list(range(COUNT))
    assert len(crossed) == len(set(crossed)) == COUNT
    assert held["a0"] | held["a1"] == held["b0"] | held["b1"] == ALL


def test_a_peer_that_takes_no_part_gets_plain_leases() -> None:
    leases = ZonedLeases(Leases(COUNT, COUNT), Crossings(COUNT, random.Random(2)))
    leases.enter("a0", "a", "a0:1")
    for name in ("a0", "x"):
        leases.update(name, Demand(ALL, from_seeders=True), 1.0)
    grants = leases.grant(1.0)
    assert grants["a0"].crossings == ()
    assert grants["x"].crossings is None
    leases.leave("a0")
    assert set(leases.grant(1.1)) == {"x"}
