"""The queue: one turn at a time, in the order of arrival, with a bound on those that wait."""

import asyncio

import pytest

from p2pmodel.errors import TooManyRequests
from p2pmodel.serving.answers import AnswerQueue


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def waiting(queue: AnswerQueue, count: int) -> None:
    for _ in range(1000):
        if queue.waiting == count:
            return
        await asyncio.sleep(0)
    pytest.fail(f"{queue.waiting} wait, not {count}")


async def test_turns_are_in_the_order_of_arrival() -> None:
    queue, order, go = AnswerQueue(5), list[int](), asyncio.Event()

    async def request(number: int) -> None:
        async with queue.turn():
            order.append(number)
            await go.wait()

    tasks = []
    for number in range(4):
        tasks.append(asyncio.create_task(request(number)))
        await waiting(queue, number)
    assert (order, queue.running) == ([0], True)
    tasks[2].cancel()
    go.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 1, 3]
    assert (queue.running, queue.waiting) == (False, 0)


async def test_without_room_to_wait_an_idle_model_still_answers() -> None:
    queue = AnswerQueue(0)
    for _ in range(2):
        async with queue.turn():
            with pytest.raises(TooManyRequests, match="1 request ahead"):
                async with queue.turn():
                    pytest.fail("it has no turn")


@pytest.mark.parametrize(("seconds", "retry"), [(0.001, 1), (12.0, 24), (3600.0, 60)])
async def test_a_refused_client_waits_for_as_long_as_the_turns_took(seconds: float, retry: int) -> None:
    clock = Clock()
    queue = AnswerQueue(1, clock=clock)
    async with queue.turn():
        clock.now += seconds
    async with queue.turn():
        second = asyncio.create_task(_one(queue))
        await waiting(queue, 1)
        with pytest.raises(TooManyRequests) as refused:
            await _one(queue)
        assert refused.value.retry_after == retry
    await second


async def _one(queue: AnswerQueue) -> None:
    async with queue.turn():
        pass


async def test_a_failure_gives_the_turn_back() -> None:
    queue = AnswerQueue(0)
    with pytest.raises(ValueError, match="broken"):
        async with queue.turn():
            raise ValueError("broken")
    async with queue.turn():
        assert queue.running
