"""The pass over many items: complete, counted, lazy, and stopped as a whole."""

import threading
import time
from collections.abc import Iterator

import pytest

from p2pmodel.store.files import parallel as module
from p2pmodel.store.files.parallel import Count, default_jobs, in_parallel
from tests.support.eventually import PATIENCE


def test_every_item_is_worked_on_once_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COUNT_EVERY", 10)
    done: list[int] = []
    counted: list[int] = []

    def work(item: int, count: Count) -> None:
        done.append(item)
        count(item)

    in_parallel(range(1, 100), work, 4, counted.append)
    assert sorted(done) == list(range(1, 100))
    assert sum(counted) == sum(range(1, 100))
    assert all(size >= 10 for size in counted[:-1])
    in_parallel([], work, 4, counted.append)
    assert sum(counted) == sum(range(1, 100))


def test_jobs_run_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=PATIENCE)
    in_parallel(range(3), lambda _item, _count: meeting.wait() and None, 3)


def test_the_first_failure_stops_the_rest_and_is_raised() -> None:
    taken: list[int] = []
    finished: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1_000_000):
            taken.append(number)
            yield number

    def work(item: int, count: Count) -> None:
        if item == 3:
            raise RuntimeError("item 3")
        for _ in range(5000):
            time.sleep(0.001)
            count(1)
        finished.append(item)

    with pytest.raises(RuntimeError, match="item 3"):
        in_parallel(items(), work, 4)
    assert len(taken) == 4
    assert finished == []
    assert not [t for t in threading.enumerate() if t.name.startswith("p2pmodel-store")]


def test_a_count_that_raises_stops_it_and_is_never_called_twice_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COUNT_EVERY", 1)
    inside = threading.Lock()
    calls: list[int] = []

    def on_bytes(size: int) -> None:
        assert inside.acquire(blocking=False)
        time.sleep(0.001)
        calls.append(size)
        inside.release()
        if len(calls) == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_parallel(range(10_000), lambda _item, count: count(1), 4, on_bytes)
    assert 20 <= len(calls) < 1000, "it stops soon, not after all items"


def test_jobs_are_the_cores_we_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _pid: set(range(3)))
    assert default_jobs() == 3
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _pid: set(range(200)))
    assert default_jobs() == module.MAX_JOBS
