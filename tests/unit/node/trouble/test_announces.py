"""What coordinators report about a node's announces: noted once each, and forgotten when it is over."""

from p2pmodel.coordinator.tokens import WRONG_KEY
from p2pmodel.coordinator.tracker.announce_texts import UNTRUSTED_PROXY, not_admitted, unreachable
from p2pmodel.node.trouble.announces import AnnounceTrouble

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
