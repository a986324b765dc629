"""A roll-out: which nodes it expects, when it has enough of them, and when it ends."""

import pytest

from p2pmodel.coordinator.rollout.nodes import NodeReport, told_on_behalf
from p2pmodel.coordinator.rollout.rollout import MinReady, Rollout, RolloutSpec
from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import Conflict, InvalidInput

COMMIT = "c" * 40
REPO = RepoId("org/model")
READY = NodeReport("files_ready")


def spec(*nodes: str, **terms: object) -> RolloutSpec:
    return RolloutSpec(REPO, COMMIT, nodes, **terms)  # type: ignore[arg-type]


def rollout(made: RolloutSpec) -> Rollout:
    return Rollout("abcd1234", made, "(local)", began=100.0, began_wall=1e9)


def test_it_is_complete_when_all_listed_nodes_have_passed_the_last_gate() -> None:
    each = rollout(spec("a", "b", gates=("files", "loaded")))
    each.take("a", NodeReport("loaded"), 101, 1e9 + 1)
    each.take("b", READY, 102, 1e9 + 2)
    assert each.open
    each.take("b", NodeReport("answered"), 103, 1e9 + 3)
    assert each.view(200).state == "complete"
    assert each.view(200).elapsed == 3
    with pytest.raises(Conflict):
        each.take("a", READY, 104, 1e9)


def test_nodes_that_nothing_expects_are_unlisted_and_do_not_count() -> None:
    each = rollout(spec("a", min_ready=MinReady(1)))
    each.take("stranger", READY, 101, 1e9)
    view = each.view(101)
    assert [(node.name, node.listed) for node in view.nodes] == [("a", True), ("stranger", False)]
    assert view.enough_after is None
    assert each.open


def test_without_a_list_every_node_counts() -> None:
    each = rollout(spec(min_ready=MinReady(2)))
    each.take("x", READY, 101, 1e9)
    each.take("y", READY, 104, 1e9)
    assert each.view(105).enough_after == 4
    assert each.open


def test_a_host_name_counts_with_and_without_its_domain() -> None:
    each = rollout(spec("gpu001", "gpu002.site.org"))
    each.take("gpu001.site.org", READY, 101, 1e9)
    each.take("gpu002", READY, 101, 1e9)
    assert each.view(101).state == "complete"


def test_a_short_name_that_two_listed_nodes_share_stands_for_neither() -> None:
    each = rollout(spec("n1.a", "n1.b"))
    each.take("n1", READY, 101, 1e9)
    assert not each.lists("n1")


def test_enough_is_the_moment_of_the_node_that_made_it_enough() -> None:
    each = rollout(spec("a", "b", "c", "d", min_ready=MinReady.parse("75%")))
    for second, name in enumerate("abc", 1):
        each.take(name, READY, 100 + second, 1e9)
    assert each.view(110).enough_after == 3


def test_its_deadline_ends_it() -> None:
    each = rollout(spec("a", deadline=60))
    assert not each.look(159)
    assert each.look(160)
    assert not each.look(161)
    assert (each.view(999).state, each.view(999).elapsed) == ("late", 60)


def test_it_ends_on_request_once() -> None:
    each = rollout(spec("a"))
    each.end(105)
    each.end(109)
    assert (each.view(110).state, each.view(110).elapsed) == ("ended", 5)


def test_a_restart_counts_the_time_in_between_and_keeps_the_gates() -> None:
    before = rollout(spec("a", "b"))
    before.take("a", READY, 103, 1e9 + 3)
    after = Rollout.restored(before.view(105), now=7.0, wall=1e9 + 30)
    after.take("b", NodeReport("files_ready", {"files": 10.0}), 7.0, 1e9 + 30)
    view = after.view(7)
    assert [node.gates["files"].seconds for node in view.nodes] == [3, 20]
    assert view.state == "complete"


def test_a_clock_that_was_set_back_does_not_shorten_the_time() -> None:
    before = rollout(spec("a"))
    assert Rollout.restored(before.view(150), now=7.0, wall=1e9 - 500).view(7).elapsed == 50


def test_the_same_request_is_the_same_rollout_whatever_the_order_of_nodes() -> None:
    assert spec("a", "b").same(spec("b", "a", deadline=5.0))
    assert not spec("a", "b").same(spec("a"))
    assert not spec("a").same(spec("a", gates=("files", "loaded")))


def test_new_terms_count_from_the_request() -> None:
    each = rollout(spec("a", "b", deadline=60))
    each.take("a", READY, 110, 1e9)
    each.replace_terms(spec("a", "b", deadline=60, min_ready=MinReady(1)), 130)
    assert not each.look(161)
    assert each.view(161).enough_after == 10


def test_a_report_on_behalf_does_not_count_as_heard() -> None:
    each = rollout(spec("a"))
    each.take("a", NodeReport("starting"), 101, 1e9, told_on_behalf)
    assert each.view(101).nodes[0].heard is None


@pytest.mark.parametrize(
    "terms",
    [
        {"gates": ()},
        {"gates": ("loaded", "files")},
        {"deadline": 0.5},
        {"deadline": 1e9},
        {"min_ready": MinReady(3)},
    ],
)
def test_a_specification_out_of_bounds_is_refused(terms: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        spec("a", "b", **terms)


def test_a_node_named_twice_or_badly_is_refused() -> None:
    for nodes in (("a", "a"), ("a b",)):
        with pytest.raises(InvalidInput):
            spec(*nodes)
    with pytest.raises(InvalidInput):
        RolloutSpec(REPO, "main", ("a",))


@pytest.mark.parametrize(("text", "of", "count"), [("90%", 11, 10), ("0%", 5, 0), ("7", 100, 7), ("100%", 3, 3)])
def test_min_ready_is_a_number_or_a_percentage(text: str, of: int, count: int) -> None:
    assert MinReady.parse(text).count(of) == count
    assert str(MinReady.parse(text)) == text


@pytest.mark.parametrize("text", ["", "101%", "-1", "1.5", "all"])
def test_another_min_ready_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        MinReady.parse(text)
