"""Trouble with peers and announces is stated once, and as long as it lasts in what is shown."""

from p2pmodel.coordinator.tracker.announce_texts import unreachable
from p2pmodel.node.trouble.contacts import FORGET, SETTLE
from p2pmodel.node.trouble.peers import PeerTrouble
from p2pmodel.swarm.engine import PeerUnreachable, TrackerAnswered, TrackerWarned

URL = "http://10.0.0.1:6969/announce"


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
    rig.trouble.handle(TrackerWarned(URL, unreachable("10.0.0.7:6881", "timed out")))
    rig.trouble.handle(TrackerAnswered(URL, 1))
    rig.now += SETTLE
    both = rig.trouble.unreachable(missing=True)
    assert "10.0.0.4:6881" in both
    assert "peers cannot connect to this node at 10.0.0.7:6881" in both
    assert "10.0.0.7:6881" in rig.trouble.unreachable(missing=False)
