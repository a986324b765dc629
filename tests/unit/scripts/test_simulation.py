from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.bench.distribution.kills import Kill
from scripts.bench.simulation import rig
from scripts.bench.simulation.case import MOST_CELLS, Case, links_of
from scripts.bench.simulation.links import fair_rates
from scripts.bench.simulation.piece_tables import PieceTables
from scripts.bench.simulation.report import ratios, simulation_table, summary
from scripts.bench.simulation.run import SimulatedRun

RATE = 1e6
SMALL = Case(size=8_000_000, seeder=RATE, mirror=RATE, links=links_of(6, RATE, RATE, mixed=False))
CASES = {
    "leases": SMALL,
    "stock": replace(SMALL, leases=False),
    "mixed": replace(SMALL, links=links_of(6, RATE, RATE, mixed=True)),
    "zones": replace(SMALL, zones=2),
    "a quick seeder": replace(SMALL, seeder=10 * RATE),
    "more nodes than links": replace(SMALL, size=2_000_000, links=links_of(60, RATE, RATE, mixed=False)),
}
RIG_ROW = {
    "contestant": "ours",
    "nodes": 6.0,
    "p50": 1.0,
    "p95": 1.0,
    "last": 1.0,
    "seeder_sent": 1.1,
    "seeder_says": 1.0,
    "mirror_sent": 0.0,
    "goodput": {"origin": RATE, "up": RATE, "down": RATE},
}
RIG = {
    "size": 8_000_000,
    "flags": {"mixed": "False", "kill": "None", "kill_at": "0.5", "mirror_mbit": "8.0", "seeder_mbit": "8.0"},
    "results": [RIG_ROW, RIG_ROW | {"contestant": "aria2"}],
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def test_every_byte_came_over_some_link_and_none_carried_more_than_it_can(case: Case) -> None:
    run = SimulatedRun(case)
    found = run.run()
    assert found["unfinished"] == 0
    assert (run.received[: case.nodes] >= 0.999 * case.size).all()
    assert run.sent.sum() == pytest.approx(run.received.sum())
    assert (run.sent <= run.up * run.now * 1.001).all()
    assert (run.received <= run.down * run.now * 1.001)[: case.nodes].all()


def test_no_run_beats_the_bound(case: Case) -> None:
    assert SimulatedRun(case).run()["ready"][-1] >= case.bound


def test_a_seed_determines_the_run() -> None:
    one, same, other = (SimulatedRun(each).run() for each in (SMALL, SMALL, replace(SMALL, seed=1)))
    assert one["ready_by_node"] == same["ready_by_node"] != other["ready_by_node"]


def test_leases_spare_the_seeder() -> None:
    ours, stock = SimulatedRun(SMALL).run(), SimulatedRun(replace(SMALL, leases=False)).run()
    assert ours["seeder_sent"] == pytest.approx(1, abs=0.02)
    assert stock["seeder_sent"] > 1.1


def test_a_dead_seeder_is_replaced_by_the_mirror() -> None:
    found = SimulatedRun(replace(SMALL, kill=Kill.parse("seeder,peers:0.34", 0.3, None))).run()
    assert (found["killed"], len(found["ready"]), found["unfinished"]) == (2, 4, 0)
    assert 0.2 < found["mirror_sent"] < 1


def test_one_zone_has_no_traffic_between_zones() -> None:
    assert SimulatedRun(SMALL).run()["crossed"] == 0
    assert SimulatedRun(replace(SMALL, zones=2)).run()["crossed"] > 0.4


def test_what_a_node_pulled_is_served_to_other_zones_before_its_neighbours_see_it() -> None:
    tables = PieceTables(2, [1.0] * 4, np.random.default_rng(0))
    tables.keep(0, 3)
    tables.show(np.array([0]), np.array([1]))
    assert tables.held(0) == 0b1010
    assert not tables.shown(np.array([0]), np.array([3]))[0]
    assert not tables.held(1)


def test_a_large_swarm_has_longer_pieces() -> None:
    case = replace(SMALL, size=20_000_000_000, links=links_of(10_000, RATE, RATE, mixed=False))
    layout = case.layout()
    assert layout.piece_length % case.piece_length == 0
    assert case.nodes * layout.piece_count <= MOST_CELLS * 1.01


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30),
    st.lists(st.floats(1, 1e3), min_size=5, max_size=5),
    st.lists(st.floats(1, 1e3), min_size=5, max_size=5),
)
def test_no_link_is_overloaded_and_no_flow_starves(
    flows: list[tuple[int, int]], up: list[float], down: list[float]
) -> None:
    sources, targets = (np.array(ends) for ends in zip(*flows, strict=True))
    weights = 0.5 + np.arange(len(flows)) / len(flows)
    rates = fair_rates(sources, targets, weights, np.array(up), np.array(down))
    assert (np.bincount(sources, rates, 5) <= np.array(up) * (1 + 1e-9)).all()
    assert (np.bincount(targets, rates, 5) <= np.array(down) * (1 + 1e-9)).all()
    assert (rates > 0).all()


def test_the_rigs_own_cases_are_simulated_and_compared() -> None:
    [(row, case)] = rig.cases(RIG, seed=0)
    assert (case.nodes, case.size, case.seeder, case.mirror) == (6, 8_000_000, RATE, RATE)
    found = summary(SimulatedRun(case).run(), case.bound) | {"contestant": "ours"}
    assert f"last {found['last']:.2f}, seeder_sent 1.00" in ratios([row], [found])
    assert "ours" in simulation_table([found])


def test_a_node_that_did_not_finish_is_not_left_out() -> None:
    found = SimulatedRun(SMALL).run() | {"unfinished": 1}
    assert summary(found, 1.0)["last"] == float("inf")
