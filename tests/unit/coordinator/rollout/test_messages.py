"""Roll-outs and reports as JSON: nothing is lost, and nothing malformed is taken."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.coordinator.rollout import messages
from p2pmodel.coordinator.rollout.links import RATE_SOURCES, LinkRate, NodeLinks
from p2pmodel.coordinator.rollout.nodes import (
    GATES,
    PHASES,
    NodeBytes,
    NodeFailure,
    NodeReport,
    PreflightCheck,
    told_on_behalf,
)
from p2pmodel.coordinator.rollout.rollout import MinReady, Rollout, RolloutSpec
from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import InvalidInput

TEXT = st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=60)
COUNT = st.integers(0, (1 << 62) - 1)
RATE = st.none() | st.builds(LinkRate, st.integers(1, 1 << 40), st.sampled_from(RATE_SOURCES))
REPORTS = st.builds(
    NodeReport,
    phase=st.sampled_from(PHASES),
    ages=st.dictionaries(st.sampled_from(GATES), st.integers(0, 10**6).map(float)),
    total=COUNT,
    bytes=st.builds(NodeBytes, COUNT, COUNT, COUNT, COUNT),
    rate=COUNT,
    why=TEXT,
    failure=st.none() | st.builds(NodeFailure, TEXT, TEXT, TEXT),
    preflight=st.none() | st.lists(st.builds(PreflightCheck, TEXT, st.booleans(), TEXT), max_size=4).map(tuple),
    links=st.builds(NodeLinks, RATE, RATE, RATE, st.booleans()),
)
GOOD = {"v": 1, "phase": "downloading", "total": 9, "bytes": {"origin": 1}, "rate": 1, "why": "x"}
SPEC = RolloutSpec(RepoId("org/model"), "c" * 40, ("a", "b"), ("files", "loaded"), 60.0, MinReady(50, percent=True))


@given(REPORTS)
def test_a_report_is_the_same_after_the_wire(report: NodeReport) -> None:
    assert messages.report_of(json.loads(json.dumps(messages.report_plain(report)))) == report


def test_a_report_without_numbers_says_nothing_about_them() -> None:
    assert messages.report_of({"phase": "starting"}) == NodeReport("starting")


@given(st.lists(st.tuples(st.sampled_from("abx"), REPORTS), max_size=5))
def test_a_rollout_is_the_same_after_the_wire(reports: list[tuple[str, NodeReport]]) -> None:
    each = Rollout("abcd1234", SPEC, "team", began=0.0, began_wall=1e9)
    for second, (name, report) in enumerate(reports):
        each.take(name, report, float(second), 1e9, told_on_behalf) if each.open else None
    view = each.view(9.0)
    assert messages.view_of(json.loads(json.dumps(messages.view_plain(view)))) == view
    assert messages.spec_of(messages.spec_plain(SPEC)) == SPEC


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"phase": "asleep"},
        {"phase": None},
        {"ages": {"other": 1}},
        {"ages": {"files": -1}},
        {"ages": {"files": True}},
        {"ages": [1]},
        {"total": -1},
        {"total": 1 << 62},
        {"bytes": {"origin": "1"}},
        {"bytes": 3},
        {"rate": 1.5},
        {"why": 7},
        {"error": "text"},
        {"preflight": [{"name": "x"}]},
        {"preflight": [{"name": "x", "ok": True}] * 33},
        {"links": 3},
        {"links": {"down": 3}},
        {"links": {"down": [0, "link"]}},
        {"links": {"up": [-1, "link"]}},
        {"links": {"up": [1, "guess"]}},
        {"links": {"mirrors": [1]}},
    ],
)
def test_a_malformed_report_is_refused_in_one_line(change: dict[str, Any]) -> None:
    assert messages.report_of(GOOD)
    with pytest.raises(InvalidInput) as failed:
        messages.report_of(GOOD | change)
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize("value", [None, [], "text", 3])
def test_another_value_than_an_object_is_refused(value: Any) -> None:
    for read in (messages.report_of, messages.spec_of, messages.node_of, messages.view_of):
        with pytest.raises(InvalidInput):
            read(value)


@pytest.mark.parametrize(
    "change",
    [{"nodes": "a"}, {"nodes": ["a"] * 10_001}, {"gates": ["other"]}, {"deadline": "soon"}, {"repo": "a//b"}, {"v": 9}],
)
def test_a_malformed_request_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        messages.spec_of(messages.spec_plain(SPEC) | change)


def test_texts_are_cut_and_have_no_control_characters() -> None:
    report = messages.report_of(GOOD | {"why": "\x1b[2J" + "x" * 1000})
    assert len(report.why) == 300
    assert "\x1b" not in report.why


@pytest.mark.parametrize("data", [b"[]", b"{", b'"x"', b"NaN", b"[" * 5000])
def test_a_message_is_a_json_object(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        messages.parsed_object(data, 10_000)
    with pytest.raises(InvalidInput):
        messages.parsed_object(b'{"a": 1}', 3)


@pytest.mark.parametrize("text", ["", "abc", "ABCD", "../..", None, "a" * 33])
def test_an_id_is_short_hexadecimal(text: Any) -> None:
    with pytest.raises(InvalidInput):
        messages.rollout_id(text)
