"""Requests to the engine: replies in order, errors and timeouts."""

import asyncio

import pytest

from p2pmodel.errors import LocalResource, Unavailable
from p2pmodel.swarm.libtorrent.replies import PendingReplies


async def test_answers_go_to_the_oldest_question_of_the_key() -> None:
    replies = PendingReplies()
    asked: list[int] = []
    first = asyncio.create_task(replies.ask("a", lambda: asked.append(1), timeout=5, what="x"))
    second = asyncio.create_task(replies.ask("a", lambda: asked.append(2), timeout=5, what="x"))
    other = asyncio.create_task(replies.ask("b", lambda: asked.append(3), timeout=5, what="x"))
    await asyncio.sleep(0)
    replies.answer("a", "one")
    replies.answer("b")
    replies.answer("a", "two")
    replies.answer("a", "no request")
    assert await asyncio.gather(first, second, other) == ["one", "two", None]
    assert asked == [1, 2, 3]


async def test_a_late_answer_does_not_reach_the_next_question() -> None:
    replies = PendingReplies()
    with pytest.raises(Unavailable, match=r"did not move within 0\.01 seconds"):
        await replies.ask("a", lambda: None, timeout=0.01, what="move")
    second = asyncio.create_task(replies.ask("a", lambda: None, timeout=5, what="move"))
    await asyncio.sleep(0)
    replies.answer("a", "late")
    replies.answer("a", "right")
    assert await second == "right"


async def test_refusing_one_kind_leaves_the_others_open() -> None:
    replies = PendingReplies()
    text = asyncio.create_task(replies.ask("a", lambda: None, timeout=5, what="x"))
    number = asyncio.create_task(replies.ask(1, lambda: None, timeout=5, what="x"))
    await asyncio.sleep(0)
    replies.refuse_all(LocalResource("broken"), kind=int)
    with pytest.raises(LocalResource):
        await number
    assert not text.done()
    replies.refuse_all(LocalResource("gone"))
    with pytest.raises(LocalResource, match="gone"):
        await text


async def test_concurrent_requests_each_receive_their_own_reply() -> None:
    replies = PendingReplies()
    task = asyncio.create_task(replies.ask_all([("a", object), ("b", object)], timeout=5, what="x"))
    await asyncio.sleep(0)
    replies.refuse("b", LocalResource("broken"))
    await asyncio.sleep(0)
    assert not task.done()
    replies.answer("a", "one")
    first, second = await task
    assert first.result() == "one"
    with pytest.raises(LocalResource):
        second.result()


async def test_one_late_answer_of_many_gives_all_up() -> None:
    replies = PendingReplies()
    task = asyncio.create_task(replies.ask_all([("a", object), ("b", object)], timeout=0.01, what="move"))
    await asyncio.sleep(0)
    replies.refuse("a", LocalResource("broken"))
    with pytest.raises(Unavailable, match=r"did not move within 0\.01 seconds"):
        await task
