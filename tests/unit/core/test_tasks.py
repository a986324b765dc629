"""Companions live as long as the body; the first failure reaches the caller."""

import asyncio
import threading
from collections.abc import Awaitable, Coroutine
from typing import Any

import pytest

from p2pmodel.core.tasks import companions, in_the_end, in_thread, together
from tests.support.eventually import PATIENCE
from tests.support.node_swarm import assert_nothing_runs


class Journal(list[str]):
    """Record of tasks and their ends."""

    async def forever(self, name: str) -> None:
        self.append(f"{name} began")
        try:
            await asyncio.sleep(60)
        finally:
            self.append(f"{name} ended")

    async def fails(self, error: BaseException, *, after: asyncio.Event | None = None) -> None:
        if after:
            await after.wait()
        raise error

    async def fails_when_stopped(self, error: BaseException) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise error from None


async def body_with(body: Awaitable[None], *works: Coroutine[Any, Any, None]) -> None:
    async with companions() as start:
        for work in works:
            start(work)
        await asyncio.sleep(0)
        await body


@pytest.fixture
def journal() -> Journal:
    return Journal()


async def test_companions_have_ended_when_the_body_has(journal: Journal) -> None:
    async with companions() as start:
        start(journal.forever("a"))
        start(journal.forever("b"))
        await asyncio.sleep(0)
        journal.append("body")
    assert journal == ["a began", "b began", "body", "a ended", "b ended"]
    await assert_nothing_runs()


async def test_a_companion_that_ends_by_itself_leaves_the_others_running(journal: Journal) -> None:
    async with companions() as start:
        start(asyncio.sleep(0))
        await asyncio.sleep(0.01)
        journal.append("body went on")
    assert journal == ["body went on"]


async def test_a_companions_failure_stops_the_body_and_is_raised_itself(journal: Journal) -> None:
    soon = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, soon.set)
    failing = journal.fails(KeyError("first"), after=soon)
    with pytest.raises(KeyError, match="first"):
        await body_with(journal.forever("body"), journal.forever("other"), failing)
    assert sorted(journal) == ["body began", "body ended", "other began", "other ended"]
    await assert_nothing_runs()


async def test_the_failure_of_the_body_precedes_errors_of_stopped_companions(journal: Journal) -> None:
    with pytest.raises(KeyError, match="the cause"):
        await body_with(journal.fails(KeyError("the cause")), journal.fails_when_stopped(ValueError("a consequence")))


async def test_the_failure_of_a_companion_precedes_errors_of_the_stopped_body(journal: Journal) -> None:
    soon = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, soon.set)
    with pytest.raises(KeyError, match="the cause") as caught:
        await body_with(
            journal.fails_when_stopped(ValueError("a consequence")),
            journal.fails(KeyError("the cause"), after=soon),
        )
    assert caught.value.__cause__ is None


async def test_a_failure_in_nested_groups_is_raised_itself(journal: Journal) -> None:
    async def inner() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(journal.fails(KeyError("deep")))

    with pytest.raises(KeyError, match="deep"):
        await body_with(asyncio.sleep(60), inner())


async def test_the_failure_of_a_stopped_companion_is_raised(journal: Journal) -> None:
    with pytest.raises(ValueError, match="while stopping"):
        await body_with(asyncio.sleep(0), journal.fails_when_stopped(ValueError("while stopping")))


async def test_cancelling_the_body_stops_companions_and_stays_a_cancellation(journal: Journal) -> None:
    async def body() -> None:
        async with companions() as start:
            start(journal.forever("companion"))
            await journal.forever("body")

    task = asyncio.create_task(body())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(journal)[1::2] == ["body ended", "companion ended"]
    await assert_nothing_runs()


async def test_a_deadline_around_companions_stays_a_timeout(journal: Journal) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(body_with(asyncio.sleep(60), journal.forever("companion")), 0.01)
    assert journal[-1] == "companion ended"


async def test_together_waits_for_all(journal: Journal) -> None:
    await together(asyncio.sleep(0.001 * n) for n in range(3))
    await together([])
    await assert_nothing_runs()


async def test_together_raises_the_first_failure_and_stops_the_rest(journal: Journal) -> None:
    late = asyncio.Event()
    works = [journal.forever("a"), journal.fails(KeyError("late"), after=late), journal.fails(ValueError("first"))]
    with pytest.raises(ValueError, match="first"):
        await together(works)
    assert journal == ["a began", "a ended"]
    await assert_nothing_runs()


async def test_final_work_completes_after_its_caller_is_cancelled(journal: Journal) -> None:
    go_on, done = asyncio.Event(), []

    async def work() -> None:
        await go_on.wait()
        done.append("done")

    caller = asyncio.create_task(in_the_end(work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert done == ["done"]


async def test_resources_opened_by_a_cancelled_caller_are_closed() -> None:
    began, go_on, undone = threading.Event(), threading.Event(), []

    def work() -> str:
        began.set()
        go_on.wait(PATIENCE)
        return "opened"

    caller = asyncio.create_task(in_thread(work, undone.append))
    await asyncio.to_thread(began.wait, 5)
    caller.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert undone == ["opened"]
    assert await in_thread(work, undone.append) == "opened"
    assert undone == ["opened"]
