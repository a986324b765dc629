"""The addresses of a private swarm, from several coordinators that come and go."""

from p2pmodel.coordinator.private.messages import MembershipGrant
from p2pmodel.node.private.admitted import KEPT, MOST_WITHDRAWN, AdmittedAddresses
from p2pmodel.swarm.engine import Admissions
from p2pmodel.swarm.libtorrent.private_torrents import AdmissionList


def test_a_restarted_coordinator_with_few_nodes_cuts_no_other_off() -> None:
    addresses = AdmittedAddresses()
    addresses.take("a", MembershipGrant("pem", ("10.0.0.1", "10.0.0.2")), now=0)
    addresses.take("a", MembershipGrant("pem", ("10.0.0.1",)), now=10)
    assert addresses.admissions(10 + KEPT - 1).admitted == {"10.0.0.1", "10.0.0.2"}
    assert addresses.admissions(10 + KEPT + 1).admitted == {"10.0.0.1"}


def test_a_barred_address_is_out_whatever_another_coordinator_lists() -> None:
    addresses = AdmittedAddresses()
    addresses.take("a", MembershipGrant("pem", ("10.0.0.1",), ("10.0.0.2",)), now=0)
    addresses.take("b", MembershipGrant("pem", ("10.0.0.2", "10.0.0.3")), now=0)
    found = AdmissionList()
    assert found.put("torrent", addresses.admissions(1))
    assert found.addresses == {"10.0.0.1", "10.0.0.3"}


def test_a_barred_address_is_still_out_when_its_coordinator_restarts() -> None:
    addresses = AdmittedAddresses()
    addresses.take("a", MembershipGrant("pem", ("10.0.0.1", "10.0.0.2")), now=0)
    addresses.take("a", MembershipGrant("pem", ("10.0.0.1",), ("10.0.0.2",)), now=10)
    addresses.take("a", MembershipGrant("pem", ("10.0.0.1",)), now=20)
    found = addresses.admissions(21)
    assert (found.barred, "10.0.0.2" in found.admitted - found.barred) == ({"10.0.0.2"}, False)
    addresses.take("a", MembershipGrant("pem", ("10.0.0.1", "10.0.0.2")), now=30)
    assert not addresses.admissions(31).barred


def test_a_withdrawn_certificate_stays_withdrawn_when_its_coordinator_restarts() -> None:
    addresses = AdmittedAddresses()
    addresses.take("a", MembershipGrant("pem", withdrawn=("0a",)), now=0)
    addresses.take("a", MembershipGrant("pem"), now=1)
    assert addresses.is_withdrawn("0a")
    assert not addresses.is_withdrawn("0b")
    addresses.take("b", MembershipGrant("pem", withdrawn=tuple(f"{n:x}" for n in range(MOST_WITHDRAWN))), now=2)
    addresses.take("b", MembershipGrant("pem", withdrawn=("fffff0",)), now=3)
    assert addresses.is_withdrawn("fffff0")


def test_an_address_that_one_torrent_bars_is_in_no_other() -> None:
    found = AdmissionList()
    assert found.put("one", Admissions(frozenset({"10.0.0.1", "no address", "::ffff:10.0.0.2"})))
    assert found.addresses == {"10.0.0.1", "10.0.0.2"}
    assert found.put("two", Admissions(frozenset({"10.0.0.3"}), barred=frozenset({"10.0.0.1"})))
    assert found.addresses == {"10.0.0.2", "10.0.0.3"}
    assert not found.put("two", Admissions(frozenset({"10.0.0.3"}), barred=frozenset({"10.0.0.1"})))
    assert found.drop("two")
    assert found.addresses == {"10.0.0.1", "10.0.0.2"}


def test_an_address_for_http_alone_is_barred_in_the_swarm_and_open_at_the_source() -> None:
    addresses = AdmittedAddresses()
    shared = MembershipGrant("pem", ("10.0.0.1",), ("10.0.0.2", "10.0.0.3"), http_only=("10.0.0.2",), http_only_for=9)
    addresses.take("a", shared, now=0)
    in_swarm, clients = addresses.admissions(1), addresses.clients(1)
    assert in_swarm.admitted - in_swarm.barred == {"10.0.0.1"}
    assert clients.admitted - clients.barred == {"10.0.0.1", "10.0.0.2"}
    assert addresses.http_only_for() == 9
    addresses.take("b", MembershipGrant("pem", ("10.0.0.2",)), now=2)
    in_swarm = addresses.admissions(3)
    assert "10.0.0.2" in in_swarm.barred, "whatever another coordinator lists"
    addresses.take("b", MembershipGrant("pem", barred=("10.0.0.2",)), now=4)
    assert "10.0.0.2" in addresses.clients(5).barred
    addresses.take("b", MembershipGrant("pem"), now=6)
    addresses.take("a", MembershipGrant("pem", ("10.0.0.1", "10.0.0.2")), now=6 + KEPT)
    in_swarm = addresses.admissions(7 + KEPT)
    assert (in_swarm.admitted - in_swarm.barred, addresses.http_only_for()) == ({"10.0.0.1", "10.0.0.2"}, 0)


def test_an_address_stays_barred_for_a_while_after_the_last_message_that_barred_it() -> None:
    addresses = AdmittedAddresses()
    addresses.take("a", MembershipGrant("pem", (), ("10.0.0.2",)), now=0)
    addresses.take("a", MembershipGrant("pem"), now=10 * KEPT)
    assert addresses.admissions(11 * KEPT - 1).barred == {"10.0.0.2"}
    assert not addresses.admissions(11 * KEPT + 1).barred
