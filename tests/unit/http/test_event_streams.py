"""Streams of server-sent events, over a real connection."""

import asyncio

import aiohttp
import pytest
from aiohttp import web

from p2pmodel.core.tasks import Version
from p2pmodel.http import event_streams
from p2pmodel.http.event_streams import EventStreams
from p2pmodel.http.server import serving
from tests.support.eventually import PATIENCE


async def test_a_silent_stream_beats_though_other_states_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_streams, "HEARTBEAT", 0.3)
    monkeypatch.setattr(event_streams, "PAUSE", 0.01)
    version = Version()
    streams = EventStreams(version)

    async def handle(request: web.Request) -> web.StreamResponse:
        return await streams.serve(request, lambda: {"queued": 1}, forever=False)

    async def change_others() -> None:
        while True:
            version.advance()
            await asyncio.sleep(0.02)

    app = web.Application()
    app.router.add_get("/", handle)
    async with asyncio.timeout(PATIENCE), serving(app, "127.0.0.1", 0, grace=0.1) as base:
        changes = asyncio.create_task(change_others())
        async with aiohttp.ClientSession() as session, session.get(base) as response:
            assert await response.content.readuntil(b"\n\n") == b"event: state\ndata: 1\n\n"
            assert await response.content.readuntil(b"\n\n") == b":\n\n"
            assert await response.content.readuntil(b"\n\n") == b":\n\n"
        changes.cancel()
        await streams.close()
