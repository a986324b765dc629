"""A toxic mirror in the list, each time another, over real sockets and real seconds: every run completes."""

import random

import pytest

from p2pmodel.errors import P2PModelError
from tests.support.toxic import FAULTS, KILL, ToxicRun, model, toxic_run

RUNS = 10
SIZE = 6_000_000


async def test_the_file_is_correct_for_any_fault_of_one_mirror() -> None:
    dice, snapshot = random.Random(20), model(SIZE)
    runs: list[ToxicRun] = []
    for fault in [KILL, *dice.sample(FAULTS, RUNS - 1)]:
        try:
            runs.append(await toxic_run(snapshot, fault, dice))
        except P2PModelError as error:
            pytest.fail(f"with {fault}: {error}")
    assert all(run.right for run in runs)
    assert all(run.received - run.wasted == SIZE for run in runs), "every byte is accounted for"
    assert [run for run in runs if run.gap > 2.5] == []
