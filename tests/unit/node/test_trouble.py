"""Trouble with announces and peers is stated once, and as long as it lasts in what is shown."""

from p2pmodel.coordinator.tokens import WRONG_KEY
from p2pmodel.coordinator.tracker.announce_texts import UNTRUSTED_PROXY, not_admitted, unreachable
from p2pmodel.node.trouble import FORGET, SETTLE, AnnounceTrouble, PeerContacts, PeerTrouble
from p2pmodel.swarm.engine import PeerUnreachable, TrackerAnswered, TrackerWarned

URL, OTHER = "http://10.0.0.1:6969/announce/k3y?zone=a", "http://10.0.0.2:6969/announce"
WARNING = unreachable("10.0.0.7:6881", "timed out")


def test_each_trouble_is_noted_once_for_each_coordinator_with_what_helps() -> None:
    notes: list[str] = []
    trouble = AnnounceTrouble(notes.append)
    for _ in range(2):
        trouble.failed(URL, f"tracker says: {WRONG_KEY} {URL}")
        trouble.failed(URL, UNTRUSTED_PROXY)
        trouble.warned(URL, f"({URL}) {not_admitted(['203.0.113.9:1'])}")
        trouble.warned(URL, "an unknown warning")
    trouble.failed(OTHER, WRONG_KEY)
    assert [line.partition(":")[0] for line in notes] == ["coordinator http"] * 4
    assert all(
        what in line
        for what, line in zip(
            ("coordinator_token_file", "http.trusted_proxies", "tracker.ip_from", "10.0.0.2"), notes, strict=True
        )
    )
    assert "k3y" not in "".join(notes)


def test_a_node_is_unreachable_until_an_answer_no_longer_says_so() -> None:
    notes: list[str] = []
    trouble = AnnounceTrouble(notes.append)
    trouble.answered(URL)
    assert trouble.unreachable == ""
    for _ in range(2):
        trouble.warned(URL, f"({URL}) {WARNING} {URL}; peers received bad pieces")
        trouble.answered(URL)
        assert trouble.unreachable == (
            "peers cannot connect to this node at 10.0.0.7:6881 (timed out) http://10.0.0.1:6969/announce/…?zone=a"
        )
    assert "swarm.advertise" in notes[0]
    trouble.answered(OTHER)
    assert trouble.unreachable, "by the other tracker"
    trouble.answered(URL)
    assert trouble.unreachable == ""
    assert len(notes) == 1


TRACKER = "http://10.0.0.1:6969/announce"


class Rig:
    def __init__(self) -> None:
        self.now, self.connected = 100.0, 0
        self.notes: list[str] = []
        self.trouble = PeerTrouble(self.notes.append, connected=lambda: self.connected, clock=lambda: self.now)


def test_a_firewall_between_nodes_is_noted_once_and_shown_while_it_lasts() -> None:
    rig = Rig()
    rig.trouble.look()
    for _ in range(2):
        rig.trouble.handle(PeerUnreachable("10.0.0.4:6881", "timed out"))
        rig.now += SETTLE
        rig.trouble.look()
    (note,) = rig.notes
    assert note.startswith("this node cannot connect to any of its peers (10.0.0.4:6881: timed out); check that")
    assert "10.0.0.4" in rig.trouble.unreachable(missing=True)
    assert rig.trouble.unreachable(missing=False) == "", "a complete node needs no peers"
    rig.now += FORGET
    assert rig.trouble.unreachable(missing=True) == ""


def test_both_directions_are_stated_together() -> None:
    rig = Rig()
    rig.trouble.handle(PeerUnreachable("10.0.0.4:6881", "timed out"))
    rig.trouble.handle(TrackerWarned(TRACKER, unreachable("10.0.0.7:6881", "timed out")))
    rig.trouble.handle(TrackerAnswered(TRACKER, 1))
    rig.now += SETTLE
    both = rig.trouble.unreachable(missing=True)
    assert "10.0.0.4:6881" in both
    assert "peers cannot connect to this node at 10.0.0.7:6881" in both
    assert "10.0.0.7:6881" in rig.trouble.unreachable(missing=False)


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
