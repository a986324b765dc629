"""Messages to a webhook: in order, retried a few times, never blocking the sender."""

import asyncio

import pytest
from aiohttp import web

from p2pmodel.http.server import serving
from p2pmodel.service.watch import Webhook


class Receiver:
    """Answers with `statuses` in turn, then 200; keeps what came."""

    def __init__(self, *statuses: int, stuck: bool = False) -> None:
        self.got: list[object] = []
        self._statuses = list(statuses)
        self.released = asyncio.Event()
        if not stuck:
            self.released.set()

    def serving(self):
        app = web.Application()
        app.router.add_post("/hook", self._take)
        return serving(app, "127.0.0.1", 0, grace=0.1)

    async def _take(self, request: web.Request) -> web.Response:
        self.got.append(await request.json())
        await self.released.wait()
        return web.Response(status=self._statuses.pop(0) if self._statuses else 200)


async def deliver(receiver: Receiver, *messages: dict, notes: list[str]) -> None:
    async with receiver.serving() as base:
        async with Webhook(f"{base}/hook?key=secret", notes.append, pause=0.01) as webhook:
            for message in messages:
                webhook.post(message)
        receiver.released.set()


async def test_messages_come_in_order():
    receiver, notes = Receiver(), []
    await deliver(receiver, {"n": 1}, {"n": 2}, notes=notes)
    assert (receiver.got, notes) == ([{"n": 1}, {"n": 2}], [])


async def test_a_server_error_is_tried_again_before_the_next_message():
    receiver, notes = Receiver(503, 429), []
    await deliver(receiver, {"n": 1}, {"n": 2}, notes=notes)
    assert (receiver.got, notes) == ([{"n": 1}] * 3 + [{"n": 2}], [])


@pytest.mark.parametrize(("statuses", "tries", "reason"), [((500,) * 3, 3, "HTTP 500"), ((404,), 1, "HTTP 404")])
async def test_a_lost_message_is_noted_without_the_secret(statuses, tries, reason):
    receiver, notes = Receiver(*statuses), []
    await deliver(receiver, {"n": 1}, {"n": 2}, notes=notes)
    assert len(receiver.got) == tries + 1
    assert notes == [f"a message to the webhook at 127.0.0.1 failed: {reason}"]


async def test_an_unreachable_server():
    notes: list[str] = []
    async with Webhook("http://127.0.0.1:9/hook", notes.append, pause=0.01) as webhook:
        webhook.post({"n": 1})
    assert notes == ["a message to the webhook at 127.0.0.1 failed: connection refused"]


async def test_too_many_are_dropped_and_the_end_is_bounded(monkeypatch):
    monkeypatch.setattr("p2pmodel.service.watch._DRAIN", 0.2)
    receiver, notes = Receiver(stuck=True), []
    await deliver(receiver, *({"n": n} for n in range(101)), notes=notes)
    assert len(receiver.got) == 1
    assert notes == [
        "the webhook at 127.0.0.1 is too slow: a message was dropped",
        "the webhook at 127.0.0.1 is too slow: messages were dropped",
    ]
