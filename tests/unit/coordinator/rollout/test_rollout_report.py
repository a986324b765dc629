"""The arithmetic of a roll-out's report."""

from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.coordinator.rollout.nodes import NodeBytes, NodeFailure, NodeReport
from p2pmodel.coordinator.rollout.report import percentile, ready_curve, report_json, rollout_report
from p2pmodel.coordinator.rollout.rollout import Rollout, RolloutSpec
from p2pmodel.core.content.names import RepoId


def rollout(*nodes: str) -> Rollout:
    return Rollout("abcd", RolloutSpec(RepoId("org/model"), "c" * 40, nodes), "", began=0.0, began_wall=1e9)


def numbers(origin: int = 0, peers: int = 0, *, rate: int = 0, why: str = "") -> NodeReport:
    return NodeReport("downloading", total=1000, bytes=NodeBytes(origin=origin, peers=peers), rate=rate, why=why)


def test_times_of_a_gate_wait_for_enough_nodes() -> None:
    each = rollout(*(f"n{i}" for i in range(20)))
    for i in range(10):
        each.take(f"n{i}", NodeReport("files_ready"), i + 1, 1e9)
    gate = rollout_report(each.view(30)).last_gate
    assert (gate.passed, gate.nodes, gate.ready_share) == (10, 20, 0.5)
    assert (gate.first, gate.p50, gate.p95, gate.last) == (1, 10, None, None)
    for i in range(10, 20):
        each.take(f"n{i}", NodeReport("files_ready"), i + 1, 1e9)
    gate = rollout_report(each.view(30)).last_gate
    assert (gate.p95, gate.last, gate.ready_share) == (19, 20, 1)


def test_rates_and_copies_from_the_mirrors() -> None:
    each = rollout("a", "b")
    each.take("a", numbers(origin=600, rate=50), 5, 1e9)
    each.take("b", numbers(origin=440, peers=560, rate=70), 5, 1e9)
    report = rollout_report(each.view(10))
    assert (report.rate, report.average, report.origin_copies) == (120, 160, 1.04)


def test_the_average_ends_with_the_last_node_that_has_all_files() -> None:
    each = rollout("a", "b")
    for second, name in ((5, "a"), (10, "b")):
        each.take(name, numbers(peers=1000), second, 1e9)
        each.take(name, NodeReport("files_ready"), second, 1e9)
    assert rollout_report(each.view(99)).average == 200


def test_a_slow_node_is_named_with_what_bounds_it() -> None:
    each = rollout("a", "b", "c", "d")
    for name in "abc":
        each.take(name, NodeReport("files_ready"), 10, 1e9)
    each.take("d", numbers(peers=100, rate=3, why="link: this machine's link is full"), 11, 1e9)
    assert rollout_report(each.view(12)).slow == ()
    (slow,) = rollout_report(each.view(16)).slow
    assert (slow.name, slow.seconds, slow.share, slow.why) == ("d", None, 0.1, "link: this machine's link is full")


def test_a_node_far_behind_is_named_before_any_is_ready() -> None:
    each = rollout("a", "b", "c", "d")
    for name in "abc":
        each.take(name, numbers(peers=800), 10, 1e9)
    (slow,) = rollout_report(each.view(12)).slow
    assert (slow.name, slow.why) == ("d", "never heard of")


def test_a_failed_node_is_named_with_its_error() -> None:
    each = rollout("a", "b", "c")
    for name in "ab":
        each.take(name, NodeReport("files_ready"), 1, 1e9)
    each.take("c", NodeReport("failed", failure=NodeFailure("no_space", "the disk is full")), 1, 1e9)
    report = rollout_report(each.view(9))
    assert report.failed == ("c",)
    assert report.slow[0].why == "the disk is full"
    assert (report.counts["failed"], report.counts["files_ready"]) == (1, 2)


def test_unlisted_nodes_are_named_and_not_counted() -> None:
    each = rollout("a")
    each.take("x", numbers(origin=1000), 1, 1e9)
    report = rollout_report(each.view(2))
    assert (report.unlisted, report.counts["downloading"], report.origin_copies) == (("x",), 0, 1.0)


def test_a_report_without_nodes_is_empty() -> None:
    report = rollout_report(rollout().view(0))
    assert (report.last_gate.ready_share, report.origin_copies, report.average) == (0.0, None, 0.0)
    assert report_json(report)["gates"][0]["first"] is None


def test_the_curve_ends_at_the_share_that_is_ready() -> None:
    each = rollout("a", "b")
    each.take("a", NodeReport("files_ready"), 4, 1e9)
    assert ready_curve(each.view(9), "files") == [(0.0, 0.0), (4, 0.5)]


@given(st.lists(st.floats(0, 1e6), max_size=50), st.integers(0, 20), st.sampled_from([50, 95, 100]))
def test_a_percentile_is_one_of_the_times_and_covers_its_part(times: list[float], missing: int, percent: int) -> None:
    of = len(times) + missing
    found = percentile(times, of, percent)
    if found is None:
        assert len(times) * 100 < percent * of or not times
    else:
        assert sum(time <= found for time in times) * 100 >= percent * of
