"""The soak's scenarios leave a way to finish, are the same for a seed, and may take what is left to do."""

from typing import get_args

import pytest

from scripts.soaking.bounds import BUDGET, PEER_TIMEOUT, bounds
from scripts.soaking.generation import scenario_of, setting_of
from scripts.soaking.judgement import judge
from scripts.soaking.run import Outcome
from scripts.soaking.scenario import Fault, Scenario, Setting, Topology
from scripts.soaking.summary import summary

MANY = [scenario_of(5, number, index) for number in range(150) for index in range(4)]
SETTING = Setting("flat", "seeder", 3, 12, 1, stay=True)


def scenario(*faults: Fault, setting: Setting = SETTING) -> Scenario:
    return Scenario("0.0", setting, faults)


def test_a_seed_gives_the_same_scenarios_again() -> None:
    assert [scenario_of(5, number, index) for number in range(150) for index in range(4)] == MANY
    assert [scenario_of(6, number, 0) for number in range(150)] != MANY[::4]


def test_each_scenario_has_a_mirror_or_a_seeder_without_a_fault() -> None:
    for each in MANY:
        setting = each.setting
        mirror = setting.mirrors > 1 or not each.hits("mirror")
        assert mirror or (setting.begin != "cold" and not each.hits("seeder")), each
        assert setting.peers > 1
        assert each.faults


def test_all_topologies_roles_kinds_and_moments_occur() -> None:
    assert {each.setting.topology for each in MANY} == {*get_args(Topology)}
    faults = [fault for each in MANY for fault in each.faults]
    assert len({(fault.role, fault.kind, fault.moment) for fault in faults}) == 4 * 4 * 3 + 3
    assert setting_of(5, 3) == MANY[12].setting


def test_the_bound_counts_moments_and_what_is_left() -> None:
    frozen = Fault("seeder", "freeze", "midway")
    one = bounds(scenario(frozen), 5.0, 0.5)
    assert 5.0 + 2 * PEER_TIMEOUT < one.seconds < 5.0 + 2 * PEER_TIMEOUT + 3.0
    two = bounds(scenario(frozen, Fault("peer", "kill", "end")), 5.0, 0.5)
    assert two.seconds == one.seconds + 2 * PEER_TIMEOUT
    apart = bounds(scenario(frozen, Fault("coordinator", "kill", "midway")), 5.0, 0.5)
    assert apart.needed == pytest.approx(3 * one.needed)
    assert apart.copies > 3 > one.copies > BUDGET


def test_an_undisturbed_run_with_a_seeder_takes_nothing_from_mirrors() -> None:
    outcome = Outcome(seconds={"peer1": 4.0}, mirror_bytes=1)
    assert judge(scenario(), outcome, 5.0, SETTING.size).faults == ("the mirrors sent 0.00 copies, 0.00 are right",)


def test_a_late_peer_and_one_that_never_ends_are_wrong() -> None:
    frozen = scenario(Fault("seeder", "freeze", "midway"))
    late = judge(frozen, Outcome(seconds={"peer1": 100.0}), 5.0, SETTING.size)
    assert not judge(frozen, Outcome(seconds={"peer1": 100.0}), 30.0, SETTING.size, lenient=True).faults
    never = judge(frozen, Outcome(seconds={"peer1": None}, complaints=["peer1 has 0"]), 5.0, SETTING.size)
    right = judge(frozen, Outcome(seconds={"peer1": 6.0}), 5.0, SETTING.size)
    assert [bool(each.faults) for each in (late, never, right)] == [True, True, False]
    text = summary([late, never, right], [])
    assert "3 scenarios, 0 undisturbed runs" in text
    assert "2 failed" in text
