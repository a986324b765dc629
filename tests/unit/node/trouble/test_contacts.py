"""What a node states about peers to which it cannot connect, and when."""

from p2pmodel.node.trouble.contacts import FORGET, SETTLE, PeerContacts

TIMED_OUT, REFUSED = "timed out", "Connection refused"


def contacts(**failures: str) -> PeerContacts:
    made = PeerContacts()
    for name, reason in failures.items():
        made.failed(f"10.0.0.{name[1:]}:6881", reason, 100.0)
    return made


def test_nothing_is_stated_without_a_failure_or_before_others_had_time() -> None:
    assert contacts().unreachable(0, 1e9) == ""
    assert contacts(p1=TIMED_OUT).unreachable(0, 100 + SETTLE - 0.1) == ""


def test_without_any_peer_each_failure_counts() -> None:
    for reason, shown in ((TIMED_OUT, "timed out"), (REFUSED, "connection refused")):
        stated = contacts(p1=reason).unreachable(0, 100 + SETTLE)
        assert stated == f"this node cannot connect to any of its peers (10.0.0.1:6881: {shown})"


def test_beside_connected_peers_those_that_have_left_do_not_count() -> None:
    some = contacts(p1=REFUSED, p2=TIMED_OUT)
    assert some.unreachable(3, 100 + SETTLE) == "this node cannot connect to 1 of its peers (10.0.0.2:6881: timed out)"
    assert contacts(p1=REFUSED).unreachable(3, 100 + SETTLE) == ""


def test_an_address_that_fails_no_longer_is_forgotten() -> None:
    assert contacts(p1=TIMED_OUT).unreachable(0, 100 + FORGET) == ""
