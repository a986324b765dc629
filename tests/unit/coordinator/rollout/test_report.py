"""The arithmetic of a roll-out's report."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.cli.rollout.tables import bound_line, page
from p2pmodel.coordinator.rollout import messages
from p2pmodel.coordinator.rollout.links import NO_LINKS, LinkRate, NodeLinks, host_links, narrowest, together
from p2pmodel.coordinator.rollout.nodes import NodeBytes, NodeFailure, NodeReport, told_on_behalf
from p2pmodel.coordinator.rollout.report import RolloutBound, percentile, ready_curve, report_json, rollout_report
from p2pmodel.coordinator.rollout.rollout import Rollout, RolloutSpec, RolloutView
from p2pmodel.core.content.names import RepoId

MODEL = 1000
NODES = ("a", "b", "c", "d")
FAST = LinkRate(500, "link")


def link(rate: int) -> LinkRate:
    return LinkRate(rate, "link")


def finished(
    links: dict[str, NodeLinks],
    *,
    origin: int = 0,
    cache: int = 0,
    mirroring: NodeLinks | None = None,
    seconds: tuple[float, ...] = (20, 22, 24, 30),
) -> RolloutView:
    """A roll-out with nodes that are through after `seconds`; bytes not of `origin` and `cache` are from peers."""
    rollout = Rollout("abcd", RolloutSpec(RepoId("org/model"), "c" * 40, NODES), "", began=0.0, began_wall=1e9)
    if mirroring:
        told = NodeReport("expected", links=dataclasses.replace(mirroring, mirroring=True))
        rollout.take("a", told, 0.5, 1e9, told_on_behalf)
    for name, second in zip(NODES, seconds, strict=True):
        sources = NodeBytes(origin=origin, peers=MODEL - origin - cache, cache=cache)
        rollout.take(
            name, NodeReport("files_ready", total=MODEL, bytes=sources, links=links.get(name, NO_LINKS)), second, 1e9
        )
    return rollout.view(31.0)


def bound(view: RolloutView) -> RolloutBound:
    found = rollout_report(view).bound
    assert found is not None
    return found


ALL = {name: NodeLinks(down=link(100), up=link(200)) for name in NODES}


def test_the_slowest_link_that_all_bytes_must_pass_is_the_bound() -> None:
    found = bound(finished(ALL, mirroring=NodeLinks(mirrors=LinkRate(50, "measured"))))
    assert (found.seconds, found.p50, found.p95, found.last) == (20.0, 1.1, 1.5, 1.5)
    assert [(part.link, part.rate, part.source, part.seconds) for part in found.parts] == [
        ("the mirrors", 50, "measured", 20.0),
        ("the uplink of the seeders", 200, "link", 5.0),
        ("the link to a", 100, "link", 10.0),
        ("all uplinks together", 850, "measured", pytest.approx(4000 / 850)),
    ]
    slow = ALL | {"c": NodeLinks(down=LinkRate(40, "declared"), up=FAST)}
    found = bound(finished(slow, mirroring=NodeLinks(mirrors=LinkRate(50, "measured"))))
    assert (found.seconds, found.parts[2].link, found.parts[2].source) == (25.0, "the link to c", "declared")


def test_bytes_of_the_cache_cross_no_link() -> None:
    mirroring = NodeLinks(mirrors=LinkRate(1000, "measured"))
    assert bound(finished(ALL, cache=600, mirroring=mirroring)).seconds == 4.0
    assert rollout_report(finished(ALL, cache=MODEL)).bound is None


@pytest.mark.parametrize(
    ("links", "given", "unknown"),
    [
        (ALL, None, "the rate of the uplink of the seeders is not known"),
        (ALL, NodeLinks(), "the rate of the mirrors is not known"),
        (
            ALL | {"a": NodeLinks(down=FAST)},
            NodeLinks(mirrors=FAST),
            "the rate of the uplink of the seeders is not known",
        ),
        (
            {"a": ALL["a"]},
            NodeLinks(mirrors=FAST),
            "the rate of the link to b and 2 more nodes is not known",
        ),
        ({}, NodeLinks(), "the rate of the mirrors and of the uplink of the seeders and of the link to a and 3 more"),
        # The links were faster than what is known of them, so that is no bound.
        ({name: NodeLinks(link(10), link(10)) for name in NODES}, NodeLinks(mirrors=FAST), "the last node was faster"),
    ],
)
def test_what_is_not_known_is_not_guessed(links: dict[str, NodeLinks], given: NodeLinks | None, unknown: str) -> None:
    view = finished(links, mirroring=given)
    found = bound(view)
    assert (found.seconds, found.p50, found.p95, found.last, found.parts) == (None, None, None, None, ())
    assert found.unknown.startswith(unknown)
    assert f"T* is unknown: {unknown}" in page(view)


def test_nodes_that_pull_from_the_mirrors_themselves_are_bound_by_their_links_to_them() -> None:
    assert bound(finished(ALL, origin=250)).unknown == "the rate of the mirrors is not known"
    known = {name: dataclasses.replace(each, mirrors=LinkRate(5, "declared")) for name, each in ALL.items()}
    assert bound(finished(known, origin=250, seconds=(50, 51, 52, 60))).seconds == 50.0


def test_a_roll_out_that_goes_on_has_the_multiples_that_are_known() -> None:
    view = finished(ALL, mirroring=NodeLinks(mirrors=FAST))
    late = dataclasses.replace(view.nodes[3], gates={}, phase="downloading")
    found = bound(dataclasses.replace(view, nodes=(*view.nodes[:3], late)))
    assert (found.seconds, found.p50, found.p95, found.last) == (10.0, 2.2, None, None)


def test_a_node_that_failed_takes_no_part() -> None:
    view = finished(ALL | {"d": NodeLinks()}, mirroring=NodeLinks(mirrors=FAST))
    assert bound(view).unknown == "the rate of the link to d is not known"
    failed = dataclasses.replace(view.nodes[3], gates={}, phase="failed")
    found = bound(dataclasses.replace(view, nodes=(*view.nodes[:3], failed)))
    assert (found.seconds, found.p50, found.last) == (10.0, 2.2, None)


def test_the_report_says_it_in_one_line_and_in_json() -> None:
    report = rollout_report(finished(ALL, mirroring=NodeLinks(mirrors=LinkRate(50, "measured"))))
    line = bound_line(report)
    assert line.startswith("T* is 20.0 s (the mirrors 50 bytes/s (measured): 20.0 s; ")
    assert line.endswith("nodes with all files after: half 1.10 T*, 95% 1.50 T*, the last 1.50 T*")
    plain = json.loads(json.dumps(report_json(report)))["bound"]
    assert (plain["seconds"], plain["last"], plain["parts"][0]["source"]) == (20.0, 1.5, "measured")


def test_links_survive_the_wire_and_a_restart() -> None:
    view = finished(ALL, mirroring=NodeLinks(mirrors=LinkRate(50, "measured")))
    again = messages.view_of(json.loads(json.dumps(messages.view_plain(view))))
    assert bound(Rollout.restored(again, 0.0, 1e9).view(0.0)) == bound(view)
    older = messages.view_plain(view)
    for node in older["nodes"]:
        del node["links"]
    assert messages.view_of(older).nodes[0].links == NO_LINKS


def test_a_host_knows_its_limits_and_its_interface() -> None:
    assert host_links(None, 0, 0) == NO_LINKS
    assert host_links(1000.0, 0, 400) == NodeLinks(down=LinkRate(400, "declared"), up=LinkRate(1000, "link"))
    assert narrowest(None, LinkRate(0, "link")) is None
    assert together([]) is None
    assert together([FAST, None]) is None
    assert together([FAST, LinkRate(1, "measured")]) == LinkRate(501, "measured")


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
