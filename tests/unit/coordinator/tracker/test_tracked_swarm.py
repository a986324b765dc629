"""Nodes with several engines at a tracker: they count as one node, and each engine gets the engines it has use for."""

import random

from p2pmodel.coordinator.tracker.announces import AnnounceAnswer, TrackedSwarms
from p2pmodel.coordinator.tracker.sources import Role
from p2pmodel.coordinator.tracker.tracked_swarm import Announce, Counts, Event
from p2pmodel.swarm.peer_ids import engine_number, peer_ids_of_node

HASH = b"h" * 20
TOTAL = 1200


class Rig:
    """Announces of node n at 10.0.0.n; its engine i is at port 6000 + i."""

    def __init__(self) -> None:
        self.now = 0.0
        self.swarms = TrackedSwarms(lambda: self.now, random.Random(1))
        self.ids: dict[int, list[bytes]] = {}

    def node(self, number: int, engines: int, left: int = TOTAL, *, role: Role = "") -> list[AnnounceAnswer]:
        self.ids[number] = [bytes.fromhex(each) for each in peer_ids_of_node(engines)]
        return [self.announce(number, engine, left, event="started", role=role) for engine in range(engines)]

    def announce(
        self, number: int, engine: int = 0, left: int = TOTAL, *, event: Event = "", role: Role = ""
    ) -> AnnounceAnswer:
        key = b"%d-%d" % (number, engine)
        request = Announce(HASH, self.ids[number][engine], 6000 + engine, left, event, 50, key, b"", role)
        return self.swarms.announce(request, bytes([10, 0, 0, number]))

    def counts(self) -> Counts:
        return self.swarms.counts(HASH)


def places(answer: AnnounceAnswer) -> set[tuple[int, int]]:
    """(node, engine) of each listed endpoint."""
    found = [endpoint for peer in answer.peers for endpoint in peer.endpoints]
    assert len(found) == len(set(found))
    return {(endpoint[3], int.from_bytes(endpoint[4:], "big") - 6000) for endpoint in found}


def test_an_engine_gets_those_engines_of_other_nodes_that_have_its_pieces() -> None:
    rig = Rig()
    rig.node(1, 4)
    rig.node(2, 2)
    rig.node(3, 1)
    assert places(rig.announce(1, 3)) == {(2, 1), (3, 0)}
    assert places(rig.announce(2, 1)) == {(1, 1), (1, 3), (3, 0)}
    assert places(rig.announce(3)) == {(1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1)}
    assert rig.counts() == Counts(leechers=3)


def test_of_engines_that_each_have_all_pieces_one_is_listed_the_same_each_time() -> None:
    rig = Rig()
    rig.node(1, 4, left=0)
    [first] = rig.node(2, 1)
    assert len(places(first)) == 1
    assert places(first) == places(rig.announce(2))
    rig.node(3, 4)
    assert [places(rig.announce(3, engine)) - {(2, 0)} for engine in range(4)] == [{(1, n)} for n in range(4)]
    assert rig.counts() == Counts(seeders=1, leechers=2)


def test_a_node_is_complete_when_its_engines_together_have_all_pieces() -> None:
    rig = Rig()
    rig.node(1, 1)
    rig.node(2, 3)
    for engine in range(3):
        assert not rig.swarms.is_held(HASH)
        rig.announce(2, engine, TOTAL - TOTAL // 3, event="paused")
    assert rig.swarms.is_held(HASH)
    assert rig.counts() == Counts(seeders=1, leechers=1, completed=1)
    rig.announce(2, 0, 0)
    assert rig.counts() == Counts(seeders=1, leechers=1, completed=1)
    assert places(rig.announce(1)) == {(2, 0), (2, 1), (2, 2)}, "the others have still their own part alone"


def test_a_node_goes_with_its_last_engine() -> None:
    rig = Rig()
    rig.node(1, 2)
    rig.node(2, 2, left=0)
    for engine in range(2):
        assert rig.counts() == Counts(seeders=1, leechers=1)
        rig.announce(2, engine, 0, event="stopped")
    assert rig.counts() == Counts(leechers=1)
    assert places(rig.announce(1)) == set()


def test_a_role_ends_for_all_engines_of_a_node() -> None:
    rig = Rig()
    rig.node(1, 2, left=0, role="source")
    rig.node(2, 2)
    assert places(rig.announce(2, 1, role="leaseholder")) == set()
    endpoint = bytes([10, 0, 0, 1]) + (6000).to_bytes(2, "big")
    assert set(rig.swarms.node_at(HASH, endpoint).values()) == set(rig.ids[1])
    rig.swarms.end_role(HASH, endpoint)
    assert places(rig.announce(2, 1, role="leaseholder")) == {(1, 1)}
    rig.swarms.end_role(HASH, endpoint, drop=True)
    assert rig.counts() == Counts(leechers=1)


def test_a_stranger_with_the_id_of_a_node_takes_no_place_of_it() -> None:
    rig = Rig()
    rig.node(1, 2)
    rig.node(2, 1)
    rig.ids[9] = rig.ids[1]
    rig.announce(9, 1)
    assert rig.counts() == Counts(leechers=3)
    assert places(rig.announce(2)) == {(1, 0), (1, 1), (9, 1)}
    assert {engine_number(each) for each in rig.ids[9]} == {engine_number(each) for each in rig.ids[1]}
