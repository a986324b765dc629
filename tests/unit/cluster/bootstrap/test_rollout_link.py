"""Which nodes have a fresh update."""

from p2pmodel.cluster.bootstrap.rollout_link import STILL, NodeUpdates
from p2pmodel.coordinator.rollout.nodes import SILENCE, GateTime, NodeBytes, NodePhase, RolloutNode
from p2pmodel.coordinator.rollout.rollout import RolloutSpec, RolloutView
from p2pmodel.core.content.names import RepoId

SPEC = RolloutSpec(RepoId("org/model"), "c" * 40, ("gpu1",))


def view(elapsed: float, received: int, *, heard: float | None, phase: NodePhase = "downloading") -> RolloutView:
    gates = {"files": GateTime(elapsed, 0.0)} if phase == "files_ready" else {}
    node = RolloutNode("gpu1", phase=phase, gates=gates, total=100, bytes=NodeBytes(peers=received), heard=heard)
    return RolloutView("r", SPEC, "me", "open", 0.0, elapsed, (node,))


def test_a_node_that_moves_is_news() -> None:
    updates = NodeUpdates()
    assert updates.node("gpu1", 0.0) is None
    updates.take(view(0.0, 0, heard=None), 100.0)
    assert updates.node("gpu1", 100.0) is None  # it has never reported itself
    for second in range(60):
        updates.take(view(second, second, heard=second), 100.0 + second)
        found = updates.node("gpu1", 100.0 + second)
        assert found is not None
        assert found.bytes.peers == second
    assert updates.node("gpu1", 160.0 + SILENCE) is None
    assert not updates.hears("gpu1", 160.0 + SILENCE)
    assert updates.node("gpu2", 160.0) is None


def test_a_node_that_is_heard_and_stands_still_is_asked_itself() -> None:
    updates = NodeUpdates()
    for second in range(20):
        # All bytes are there, and the report that it is ready does not come.
        updates.take(view(second, 100, heard=second), 100.0 + second)
        assert (updates.node("gpu1", 100.0 + second) is not None) == (second < STILL)
        assert updates.hears("gpu1", 100.0 + second)
    updates.take(view(20.0, 100, heard=20.0, phase="files_ready"), 120.0)
    assert updates.node("gpu1", 120.0) is not None
    assert updates.node("gpu1", 999.0) is not None  # what has passed a gate stays behind it


def test_another_phase_is_news() -> None:
    updates = NodeUpdates()
    updates.take(view(0.0, 0, heard=0.0, phase="starting"), 100.0)
    updates.take(view(STILL, 0, heard=STILL), 100.0 + STILL)
    assert updates.node("gpu1", 101.0 + STILL) is not None
