"""What a report changes: by the node itself, on its behalf, and with its demand for leases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.coordinator.rollout.nodes import (
    GATES,
    PASSED_IN,
    PHASES,
    SILENCE,
    Gate,
    GateTime,
    NodeBytes,
    NodeFailure,
    NodePhase,
    NodeReport,
    PreflightCheck,
    RolloutMoment,
    RolloutNode,
    told_by_node,
    told_on_behalf,
    told_with_demand,
)
from p2pmodel.core.content.names import check_node_name
from p2pmodel.errors import InvalidInput

NODE = RolloutNode("gpu001")
PHASE = st.sampled_from(PHASES)


def at(seconds: float) -> RolloutMoment:
    return RolloutMoment(seconds, 1e9 + seconds)


def test_a_phase_passes_its_gate_and_those_before() -> None:
    node = told_by_node(NODE, NodeReport("loaded"), at(7))
    assert node.gates == {"files": GateTime(7, 1e9 + 7), "loaded": GateTime(7, 1e9 + 7)}
    assert node.ready("loaded")
    assert not node.ready("answered")


def test_an_age_puts_a_gate_back_in_time_but_not_before_the_rollout() -> None:
    node = told_by_node(NODE, NodeReport("loaded", {"files": 5.0, "loaded": 99.0}), at(7))
    assert node.gates == {"files": GateTime(2, 1e9 + 2), "loaded": GateTime(0, 1e9)}


def test_a_gate_keeps_the_time_of_its_first_passing() -> None:
    node = told_by_node(NODE, NodeReport("files_ready"), at(7))
    again = told_by_node(told_by_node(node, NodeReport("downloading"), at(8)), NodeReport("files_ready"), at(9))
    assert again.gates["files"].seconds == 7


def test_a_node_that_has_loaded_the_model_and_ended_has_loaded_it() -> None:
    node = told_by_node(NODE, NodeReport("loading"), at(1))
    assert told_by_node(node, NodeReport("files_ready"), at(2)).phase == "files_ready"
    node = told_by_node(node, NodeReport("files_ready", {"loaded": 1.0}), at(3))
    assert node.phase == "loaded"


def test_a_node_that_downloads_again_is_not_ready() -> None:
    node = told_by_node(told_by_node(NODE, NodeReport("files_ready"), at(7)), NodeReport("downloading"), at(8))
    assert not node.ready("files")


def test_a_failed_node_says_why_and_is_not_ready() -> None:
    why = NodeFailure("no_space", "the disk is full", "free some")
    node = told_by_node(told_by_node(NODE, NodeReport("files_ready"), at(1)), NodeReport("failed", failure=why), at(2))
    assert node.failure == why
    assert not node.ready("files")
    assert told_by_node(node, NodeReport("downloading"), at(3)).failure is None


@given(PHASE, PHASE)
def test_a_launcher_moves_no_working_node_back(before: NodePhase, told: NodePhase) -> None:
    node = told_by_node(NODE, NodeReport(before), at(1))
    after = told_on_behalf(node, NodeReport(told), at(2))
    if before != "failed":
        assert PHASES.index(after.phase) >= PHASES.index(before)
    assert after.heard == 1


def test_a_launcher_fails_a_node_only_while_it_is_silent() -> None:
    why = NodeFailure("unavailable", "the connection was lost")
    failed = NodeReport("failed", failure=why)
    assert told_on_behalf(NODE, failed, at(1)).failure == why
    heard = told_by_node(NODE, NodeReport("downloading"), at(10))
    assert told_on_behalf(heard, failed, at(10 + SILENCE / 2)).phase == "downloading"
    assert told_on_behalf(heard, failed, at(10 + SILENCE)).phase == "failed"


def test_a_launcher_tries_a_failed_node_again() -> None:
    failed = told_on_behalf(NODE, NodeReport("failed"), at(1))
    again = told_on_behalf(failed, NodeReport("preflight"), at(2))
    assert (again.phase, again.failure) == ("preflight", None)


def test_preflight_results_stay_until_new_ones_come() -> None:
    checks = (PreflightCheck("disk", ok=False, detail="12 GB free, 16 GB needed"),)
    node = told_on_behalf(NODE, NodeReport("preflight", preflight=checks), at(1))
    assert told_by_node(node, NodeReport("downloading"), at(2)).preflight == checks


def test_a_demand_changes_numbers_and_never_a_later_phase() -> None:
    numbers = NodeReport("downloading", total=100, bytes=NodeBytes(origin=10, peers=20), rate=5, why="link")
    node = told_with_demand(NODE, numbers, at(1))
    assert (node.phase, node.bytes.received, node.rate, node.why, node.share) == ("downloading", 30, 5, "link", 0.3)
    done = told_by_node(node, NodeReport("files_ready"), at(2))
    assert told_with_demand(done, numbers, at(3)).phase == "files_ready"


@given(st.lists(st.tuples(PHASE, st.sampled_from([told_by_node, told_on_behalf, told_with_demand])), max_size=12))
def test_gates_are_never_lost_and_come_in_order(steps: list) -> None:
    node = NODE
    for second, (phase, told) in enumerate(steps):
        before, node = node, told(node, NodeReport(phase), at(second))
        assert before.gates.items() <= node.gates.items()
    passed = [gate in node.gates for gate in GATES]
    assert passed == sorted(passed, reverse=True)


@pytest.mark.parametrize("gate", GATES)
def test_each_gate_has_the_phase_that_passes_it(gate: Gate) -> None:
    assert gate in told_by_node(NODE, NodeReport(PASSED_IN[gate]), at(1)).gates


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "x" * 65, "a\n", "å"])
def test_a_node_name_is_a_plain_host_name(name: str) -> None:
    with pytest.raises(InvalidInput):
        check_node_name(name)
    assert check_node_name("gpu-001.rack_7") == "gpu-001.rack_7"
