import os
import threading
from pathlib import Path

import pytest

from scripts.bench.processor.bench import Spent, rates, summary
from scripts.bench.processor.contestants import from_peers
from scripts.bench.processor.thread_costs import (
    DISK,
    HASHES,
    LOOP,
    NETWORK,
    WORKERS,
    RoleCost,
    ThreadCost,
    ThreadWatch,
    by_role,
    ceiling,
    network_name,
    role_of,
    threads_of,
)
from scripts.bench.rigs.machine import environment

PROCESS, THREAD = 10, 12


@pytest.mark.parametrize(
    ("thread", "name", "user", "system", "role"),
    [
        (PROCESS, "python", 1.0, 0.0, LOOP),
        (THREAD, network_name(THREAD), 0.5, 0.4, NETWORK),
        (THREAD, "asyncio_3", 1.0, 0.0, WORKERS),
        (THREAD, "p2pmodel-store_", 1.0, 0.0, WORKERS),
        (THREAD, "python", 0.9, 0.1, HASHES),
        (THREAD, "python", 0.1, 0.9, DISK),
    ],
)
def test_a_thread_has_one_role(thread: int, name: str, user: float, system: float, role: str) -> None:
    assert role_of(thread, PROCESS, name, user=user, system=system) == role


def test_a_child_that_inherits_the_name_of_the_network_thread_is_not_one() -> None:
    assert role_of(THREAD, PROCESS, network_name(THREAD - 1), user=0.1, system=0.9) == DISK


def test_roles_add_up_what_came_after_the_first_reading() -> None:
    before = {1: ThreadCost(WORKERS, 1.0, 0.5)}
    after = {1: ThreadCost(WORKERS, 1.5, 0.75), 2: ThreadCost(WORKERS, 0.25, 0.0), 3: ThreadCost(LOOP, 2.0, 0.0)}
    assert by_role(after, before) == {WORKERS: RoleCost(1.0, 0.75), LOOP: RoleCost(2.0, 2.0)}


def test_the_ceiling_is_that_of_the_busiest_thread_that_cannot_be_divided() -> None:
    assert ceiling({LOOP: 0.25, NETWORK: 0.5, WORKERS: 4.0}) == 2.0


def test_without_a_thread_there_is_no_ceiling() -> None:
    assert ceiling({}) == 0.0


def test_the_start_up_is_not_a_cost_of_the_bytes() -> None:
    whole = Spent(4.0, {LOOP: RoleCost(3.0, 2.0)})
    start = Spent(1.0, {LOOP: RoleCost(1.0, 1.0)})
    found = rates(whole, start, 2 * 10**9, named=True)
    assert (found["per_gb"], found["start"]) == (1.5, 1.0)
    assert (found[LOOP], found[f"busiest {LOOP}"]) == (1.0, 0.5)


def test_threads_without_names_have_no_roles() -> None:
    found = rates(Spent(4.0, {LOOP: RoleCost(3.0, 2.0)}), Spent(1.0, {}), 10**9, named=False)
    assert found == {"per_gb": 3.0, "start": 1.0}


def test_ratios_are_medians_of_the_ratios_of_each_round() -> None:
    rounds = [
        {"fetch": {"receiver": {"per_gb": ours, "start": 1.0}}, "hf": {"receiver": {"per_gb": theirs, "start": 1.0}}}
        for ours, theirs in ((2.0, 1.0), (9.0, 3.0), (4.0, 1.0))
    ]
    found = summary(rounds)
    assert found["fetch"]["receiver"]["per_gb"] == 4.0
    assert found["fetch"]["receiver"]["of"] == {"hf": 3.0}


def test_a_side_that_only_one_program_has_is_compared_with_none() -> None:
    both = {"receiver": {"per_gb": 1.0, "start": 0.0}, "sender": {"per_gb": 1.0, "start": 0.0}}
    found = summary([{"fetch": both, "sha256": {"receiver": {"per_gb": 0.5, "start": 0.0}}}])
    assert found["fetch"]["receiver"]["of"] == {"sha256": 2.0}
    assert found["fetch"]["sender"]["of"] == {}


def test_seconds_are_compared_where_both_have_them() -> None:
    rounds = [
        {
            "fetch": {"receiver": {"per_gb": 1.0, "seconds": ours}, "sender": {"per_gb": 1.0}},
            "before": {"receiver": {"per_gb": 1.0, "seconds": theirs}, "sender": {"per_gb": 1.0}},
            "sha256": {"receiver": {"per_gb": 1.0}},
        }
        for ours, theirs in ((2.0, 4.0), (3.0, 4.0), (9.0, 9.0))
    ]
    found = summary(rounds)
    assert found["fetch"]["receiver"]["seconds of"] == {"before": 0.75}
    assert found["fetch"]["sender"]["seconds of"] == {}


def test_a_thread_that_has_ended_keeps_its_cost() -> None:
    watch = ThreadWatch(os.getpid())
    ended = threading.Thread(target=lambda: seen.wait(60))
    seen = threading.Event()
    ended.start()
    number = ended.native_id
    assert number in threads_of(os.getpid())
    for _ in range(6000):
        if number in watch.seen:
            break
        threading.Event().wait(0.01)
    seen.set()
    ended.join(60)
    for _ in range(6000):  # the kernel lists it for a moment more
        if number not in threads_of(os.getpid()):
            break
        threading.Event().wait(0.01)
    assert number not in threads_of(os.getpid())
    assert number in watch.end()


def test_python_keeps_compiled_modules_as_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert "PYTHONDONTWRITEBYTECODE" not in environment(tmp_path / "node")


def test_only_a_fetch_reports_the_bytes_of_its_peers() -> None:
    assert from_peers('{"from_peers": 12}') == 12
    assert from_peers("/home/hub/snapshots/0123") is None
