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
    issued.withdraw("a")
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
