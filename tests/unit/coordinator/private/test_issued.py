"""Certificates that are withdrawn: those of nodes that were put out, present or not."""

from p2pmodel.coordinator.private.access import NodeIdentity
from p2pmodel.coordinator.private.issued import IssuedCertificates

ONE, TWO = NodeIdentity("10.0.0.1", publisher="one"), NodeIdentity("10.0.0.1", publisher="two")


def test_all_certificates_of_a_node_that_is_put_out_are_withdrawn_until_they_expire() -> None:
    issued = IssuedCertificates()
    issued.add("a1", "a", ONE, until=100)
    issued.add("a2", "a", ONE, until=200)
    issued.add("b1", "b", TWO, until=200)
    assert issued.withdrawn(0) == ()
    issued.withdraw("a", "lost")
    assert issued.withdrawn(50) == ("a1", "a2")
    assert issued.withdrawn(150) == ("a2",)
    assert issued.withdrawn(250) == ()
    assert not issued


def test_a_node_that_has_left_is_judged_on() -> None:
    issued = IssuedCertificates()
    issued.add("a1", "a", ONE, until=100)
    issued.add("b1", "b", TWO, until=100)
    issued.judge(lambda node: node.publisher == "one")
    assert issued.withdrawn(0) == (), "one that is present is judged by its connection"
    issued.leave("a")
    issued.judge(lambda node: node.publisher == "one")
    assert issued.withdrawn(0) == ("a1",)


def restarted(issued: IssuedCertificates, *, now: float = 0) -> IssuedCertificates:
    """What a new coordinator, of which the clock shows 1,000 s less, knows of them."""
    found = IssuedCertificates()
    found.restore(issued.plain(ahead=5_000), behind=6_000, now=now - 1_000)
    return found


def test_a_restart_forgets_no_certificate_that_is_withdrawn() -> None:
    issued = IssuedCertificates()
    issued.add("a1", "a", ONE, until=100, request="a")
    issued.add("b1", "b", TWO, until=200, request="b")
    issued.withdraw("a", "lost")
    found = restarted(issued, now=50)
    assert found.withdrawn(-950) == ("a1",)
    assert found.shut(-950) == {"10.0.0.1": -900}
    assert found.withdrawn(-850) == ()
    assert restarted(issued, now=150).withdrawn(-850) == ()


def test_a_node_from_before_a_restart_is_judged_and_known_again() -> None:
    issued = IssuedCertificates()
    issued.add("a1", "a", ONE, until=100, request="a")
    issued.add("b1", "b", TWO, until=100, request="b")
    revoked = restarted(issued)
    revoked.judge(lambda node: node.publisher == "one")
    assert revoked.withdrawn(-1_000) == ("a1",)
    found = restarted(issued)
    found.come_back("new b", TWO, "b")
    found.refuse("10.0.0.2")
    assert found.withdrawn(-1_000) == ()
    found.refuse("10.0.0.1")
    assert found.withdrawn(-1_000) == ("a1",), "the refused client is not the node that has come back"


def test_a_refused_client_says_nothing_of_nodes_that_this_coordinator_admitted() -> None:
    issued = IssuedCertificates()
    issued.add("a1", "a", ONE, until=100, request="a")
    issued.leave("a")
    issued.refuse("10.0.0.1")
    assert issued.withdrawn(0) == ()


def test_what_a_restart_must_not_lose_is_counted() -> None:
    issued = IssuedCertificates()
    issued.add("a1", "a", ONE, until=100)
    before = issued.changes
    issued.withdraw("a", "lost")
    assert issued.changes > before
    before = issued.changes
    issued.withdraw("a", "lost")
    issued.leave("a")
    assert issued.changes == before
