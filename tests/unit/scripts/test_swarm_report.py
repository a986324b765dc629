import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.bench.distribution.bound import Goodput
from scripts.bench.distribution.kills import Kill
from scripts.bench.distribution.report import (
    comparisons,
    delayed_by_loads,
    growth,
    held_up,
    summary,
    swarm_table,
    warnings,
)
from scripts.bench.rigs.cluster import Link

RUN: dict[str, Any] = {
    "nodes": 4,
    "joined": 4,
    "ready": [2.0, 3.0, 4.0, 5.0],
    "quick_last": 4.0,
    "failures": [],
    "unfinished": 0,
    "neighbours": 0,
    "start_seconds": 1.0,
    "first_byte_seconds": 0.5,
    "seeder_sent": 1.1,
    "seeder_says": 1.0,
    "mirror_sent": 0.0,
    "mirror_says": 0.0,
    "crossed": 0.0,
    "received": 1.02,
    "received_most": 1.05,
    "cpu_seconds_per_gb": 3.0,
    "cpu_start_seconds": 0.7,
    "memory": 100 << 20,
    "machine_busy": 0.5,
}


SWEEP = ((8, 4.5), (4, 4.0), (16, 5.0))


def test_the_bound_is_the_origin_for_alike_links() -> None:
    assert Goodput(10.0, (Link(10.0, 10.0),) * 8).bound(1000) == 100.0


def test_the_bound_is_the_slowest_node() -> None:
    assert Goodput(10.0, (Link(10.0, 10.0), Link(1.0, 1.0))).bound(1000) == 1000.0


def test_the_bound_is_the_uploads_where_nodes_hardly_upload() -> None:
    assert Goodput(10.0, (Link(0.0, 100.0),) * 3).bound(1000) == 300.0


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=40), st.floats(1, 1e6), st.integers(1, 10**9))
def test_no_bound_is_below_what_one_copy_takes(rates: list[float], origin: float, size: int) -> None:
    bound = Goodput(origin, tuple(Link(rate, rate) for rate in rates)).bound(size)
    assert bound >= size / origin
    assert bound >= size / min(rates)


def test_with_own_links_it_is_one_copy_over_all_of_them_and_then_the_exchange() -> None:
    assert Goodput(80.0, (Link(50.0, 50.0),) * 8, own=10.0).bound(4000) == 4000 / 80 + 4000 / 50


@given(st.integers(2, 64), st.floats(1, 1e6), st.floats(1, 1e6), st.integers(1, 10**9))
def test_more_own_links_take_less(count: int, own: float, down: float, size: int) -> None:
    few, more = (Goodput(n * own, (Link(down, down),) * n, own=own).bound(size) for n in (count, 2 * count))
    assert size / down <= more < few or few == pytest.approx(size / down)


def test_growth_is_from_the_fewest_nodes_to_the_most() -> None:
    rows = [("ours", summary([RUN | {"nodes": n, "ready": [last]}], 2.0) | {"mixed": False}) for n, last in SWEEP]
    assert growth(rows) == [{"contestant": "ours", "few": 4, "many": 16, "ratio": 1.25}]
    assert comparisons(rows) == ["ours: the last of 16 nodes takes 1.250 times as long as the last of 4"]


def test_nodes_that_load_are_compared_with_as_many_that_do_not() -> None:
    plain = [("ours", summary([RUN | {"nodes": n}], 2.0) | {"mixed": False}) for n in (4, 8)]
    loading = ("loading", summary([RUN | {"nodes": 8, "ready": [5.5]}], 2.0) | {"mixed": False})
    assert delayed_by_loads([*plain, loading]) == [{"nodes": 8, "mixed": False, "ratio": 1.1}]
    assert delayed_by_loads([plain[0], loading]) == []
    assert "loads on all 8 nodes: the last one takes 1.100 times" in "\n".join(comparisons([*plain, loading]))


def test_quick_nodes_are_compared_with_as_many_that_are_all_quick() -> None:
    alike = summary([RUN], 2.0) | {"mixed": False}
    mixed = summary([RUN | {"quick_last": 6.0, "ready": [5.0, 5.5, 6.0, 50.0]}], 20.0) | {"mixed": True}
    assert held_up([("ours", alike), ("ours", mixed)]) == [{"contestant": "ours", "nodes": 4, "ratio": 1.2}]
    assert growth([("ours", alike), ("ours", mixed)]) == []
    assert [line[:12].strip() for line in swarm_table([("ours", alike), ("ours", mixed)]).splitlines()[1:]] == [
        "ours",
        "ours mixed",
    ]


def test_times_are_multiples_of_the_bound() -> None:
    found = summary([RUN, RUN | {"ready": [4.0, 5.0, 6.0, 7.0]}, RUN], 2.0)
    assert (found["p50"], found["p95"], found["last"]) == (1.5, 2.5, 2.5)
    assert (found["last_from_byte"], found["last_from_start"]) == (2.25, 3.0)


def test_a_node_that_did_not_finish_is_not_left_out() -> None:
    found = summary([RUN | {"ready": [2.0, 3.0], "unfinished": 1, "failures": ["peer4: died"]}], 1.0)
    assert (found["p50"], found["last"], found["lost"]) == (3.0, math.inf, 2)
    assert "2 LOST" in swarm_table([("ours", found)])
    assert warnings([("ours", found)]) == [
        "ours, 4 nodes: peer4: died",
        "ours, 4 nodes: 1 nodes were not complete in time",
    ]


def test_the_roles_and_peers_to_kill_are_parsed() -> None:
    kill = Kill.parse("seeder,peers:0.3", 0.5, None)
    assert (kill.roles, kill.peers) == (("seeder",), 0.3)


@pytest.mark.parametrize("text", ["foo", "seeder:2", "peers:2", "peers:x"])
def test_other_kills_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Kill.parse(text, 0.5, None)
