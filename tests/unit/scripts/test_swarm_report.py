import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.swarm.bound import Goodput
from scripts.swarm.cluster import Link
from scripts.swarm.kills import Kill
from scripts.swarm.report import complaints, summary, table

RUN: dict[str, Any] = {
    "nodes": 4,
    "joined": 4,
    "ready": [2.0, 3.0, 4.0, 5.0],
    "failures": [],
    "unfinished": 0,
    "neighbours": 0,
    "start_seconds": 1.0,
    "first_byte_seconds": 0.5,
    "seeder_sent": 1.1,
    "seeder_says": 1.0,
    "mirror_sent": 0.0,
    "received": 1.02,
    "received_most": 1.05,
    "cpu_seconds_per_gb": 3.0,
    "cpu_start_seconds": 0.7,
    "memory": 100 << 20,
    "machine_busy": 0.5,
}


def test_the_bound_is_the_origin_for_alike_links() -> None:
    assert Goodput(10.0, (Link(10.0, 10.0),) * 8).bound(1000) == 100.0


def test_the_bound_is_the_slowest_node() -> None:
    assert Goodput(10.0, (Link(10.0, 10.0), Link(1.0, 1.0))).bound(1000) == 1000.0


def test_the_bound_is_the_uploads_where_nodes_can_hardly_send() -> None:
    assert Goodput(10.0, (Link(0.0, 100.0),) * 3).bound(1000) == 300.0


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=40), st.floats(1, 1e6), st.integers(1, 10**9))
def test_no_bound_is_below_what_one_copy_takes(rates: list[float], origin: float, size: int) -> None:
    bound = Goodput(origin, tuple(Link(rate, rate) for rate in rates)).bound(size)
    assert bound >= size / origin
    assert bound >= size / min(rates)


def test_times_are_multiples_of_the_bound() -> None:
    found = summary([RUN, RUN | {"ready": [4.0, 5.0, 6.0, 7.0]}, RUN], 2.0)
    assert (found["p50"], found["p95"], found["last"]) == (1.5, 2.5, 2.5)
    assert (found["last_from_byte"], found["last_from_start"]) == (2.25, 3.0)


def test_a_node_that_never_came_is_not_left_out() -> None:
    found = summary([RUN | {"ready": [2.0, 3.0], "unfinished": 1, "failures": ["peer4: died"]}], 1.0)
    assert (found["p50"], found["last"], found["lost"]) == (3.0, math.inf, 2)
    assert "2 LOST" in table([("ours", found)])
    assert complaints([("ours", found)]) == [
        "ours, 4 nodes: peer4: died",
        "ours, 4 nodes: 1 nodes were not complete in time",
    ]


def test_who_is_killed() -> None:
    kill = Kill.parse("seeder,peers:0.3", 0.5, None)
    assert (kill.roles, kill.peers) == (("seeder",), 0.3)


@pytest.mark.parametrize("text", ["foo", "seeder:2", "peers:2", "peers:x"])
def test_nobody_else_is_killed(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Kill.parse(text, 0.5, None)
