"""Honest nodes beside peers that lease and never pull, in simulated time: the leases cost them little."""

import pytest

from p2pmodel.coordinator.leases.demand import Demand
from p2pmodel.coordinator.leases.lease_counts import MOST_OF_ADDRESS
from p2pmodel.coordinator.leases.leases import Leases
from p2pmodel.coordinator.leases.peer import UNPROVEN
from p2pmodel.coordinator.leases.seats import LATE_AT_LEAST
from p2pmodel.core.content.bitfield import bits_of
from tests.support.lease_swarm import HONEST_ADDRESS, PIECE, HostilePeers, LeaseSwarm

QUICK = (1e9, 1e9, 1e9)
NONE = HostilePeers(count=0)


@pytest.fixture(scope="module")
def undisturbed() -> float:
    return LeaseSwarm(180, NONE, links=QUICK).run()


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(HostilePeers(), id="at an address of their own"),
        pytest.param(HostilePeers(address=HONEST_ADDRESS), id="at the address of the nodes"),
        pytest.param(HostilePeers(address=""), id="each at its own address"),
        pytest.param(HostilePeers(flapping=40), id="all come and go"),
        pytest.param(HostilePeers(flapping=40, address=HONEST_ADDRESS), id="come and go at the address of the nodes"),
        pytest.param(HostilePeers(count=100, address=HONEST_ADDRESS), id="a great many"),
    ],
)
def test_nodes_take_hardly_longer_beside_peers_that_never_pull(undisturbed: float, hostile: HostilePeers) -> None:
    swarm = LeaseSwarm(180, hostile, links=QUICK)
    assert swarm.run() < 1.5 * undisturbed
    assert swarm.copies < 1.1


def test_a_swarm_without_them_downloads_one_copy() -> None:
    swarm = LeaseSwarm(180, NONE, links=QUICK)
    swarm.run()
    assert swarm.copies < 1.1


def test_one_slow_peer_does_not_bound_the_end() -> None:
    quick = LeaseSwarm(120, NONE, links=(1e9,)).run()
    assert LeaseSwarm(120, NONE, links=(1e9, 20_000)).run() < 1.15 * quick + LATE_AT_LEAST


def test_a_slow_newcomer_of_the_same_address_gets_leases_and_delivers() -> None:
    swarm = LeaseSwarm(360, HostilePeers(address=HONEST_ADDRESS), links=(1e9, 1e9, 200_000))
    swarm.run()
    assert swarm.nodes[2].came


def lacks(*pieces: int, want: int = 1) -> Demand:
    return Demand(bits_of(pieces), from_seeders=True, want=want)


def a_delivers(leases: Leases) -> None:
    """The peer "a" has delivered piece 0, in a tenth of a second."""
    leases.update("a", lacks(0), 0.0)
    leases.grant(0.0)
    leases.update("a", lacks(), 0.1)
    leases.grant(0.1)


def test_a_peer_without_a_free_piece_takes_over_a_late_lease_and_no_other() -> None:
    leases = Leases(2, 2 * PIECE)
    a_delivers(leases)
    leases.update("b", lacks(1), 0.2)
    assert leases.grant(0.2)["b"].pieces == (1,)
    for now, holder in ((0.2 + LATE_AT_LEAST, "b"), (0.3 + LATE_AT_LEAST, "a")):
        leases.update("a", lacks(1), now)
        leases.update("b", lacks(1), now)
        assert [name for name, grant in leases.grant(now).items() if grant.pieces] == [holder]


def test_a_lease_that_was_taken_over_counts_when_its_piece_comes_first_all_the_same() -> None:
    leases = Leases(3, 3 * PIECE)
    a_delivers(leases)
    leases.update("b", lacks(1), 0.2)
    leases.grant(0.2)
    late = 0.3 + LATE_AT_LEAST
    leases.update("a", lacks(1), late)
    assert leases.grant(late)["a"].pieces == (1,)
    leases.update("b", lacks(2), late + 0.1)
    assert leases._peers["b"].record.proven


def test_a_peer_that_lacks_nothing_of_late_leases_takes_none_over() -> None:
    leases = Leases(3, 3 * PIECE)
    a_delivers(leases)
    leases.update("b", lacks(1), 0.2)
    leases.grant(0.2)
    leases.update("a", lacks(want=5), 2.0)
    leases.update("b", lacks(1), 2.0)
    assert leases.grant(2.0)["b"].pieces == (1,)


def test_reported_leases_are_adopted_up_to_a_bound() -> None:
    leases = Leases(1000, 1000 * PIECE)
    leases.update("a", lacks(0, want=0), 0.0)
    everything = Demand((1 << 1000) - 1, from_seeders=True, want=1 << 40, leased=(1 << 1000) - 1)
    leases.update("hostile", everything, 0.0)
    assert len(leases.grant(0.0)["hostile"].pieces) <= UNPROVEN


def test_many_peers_of_one_address_adopt_half_of_the_pieces_at_most() -> None:
    leases = Leases(1000, 1000 * PIECE)
    for number in range(50):
        mine = bits_of(range(20 * number, 20 * number + 20))
        leases.update(f"hostile{number}", Demand((1 << 1000) - 1, from_seeders=True, leased=mine), 0.0, address="one")
    assert sum(len(peer.leased) for peer in leases._peers.values()) <= MOST_OF_ADDRESS


def test_what_a_peer_that_never_delivers_says_of_others_does_not_harm_their_record() -> None:
    leases = Leases(8, 8 * PIECE)
    held = set(range(8))
    now = 0.0
    while held:
        leases.update("a", lacks(*held, want=2), now)
        held -= set(leases.grant(now)["a"].pieces)
        now += 0.1
    while now < 120:
        leases.update("a", lacks(), now)
        leases.update("hostile", lacks(*range(8), want=8), now)
        leases.grant(now)
        now += 1.0
    assert leases._peers["a"].record.proven
