"""Server-sent events: the latest state of things, whenever it is another than the client has seen.

States in between are left out, so a slow client costs nothing and is never behind.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress

from aiohttp import ClientConnectionResetError, web

from p2pmodel.core.version import Version
from p2pmodel.errors import Unavailable

HEARTBEAT = 5.0
"""Seconds after which something is sent anyhow, to find out whether the client is still there."""
PAUSE = 0.1
"""Seconds between two looks at least."""
MOST = 100
"""Streams at a time."""


class EventStreams:
    """The streams of one application. Each ends when its client goes, when there is nothing left to tell, or with
    `close`."""

    def __init__(self, version: Version) -> None:
        self._version = version
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(
        self, request: web.Request, look: Callable[[], Mapping[str, object]], *, forever: bool
    ) -> web.StreamResponse:
        """Tell of every change in what `look` returns, by key: `event: state` with the value, `event: gone` with the
        key. Unless `forever`, it ends when there is nothing more."""
        if len(self._tasks) >= MOST:
            raise Unavailable(f"{MOST} others are watching already", hint="try again later")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        response.content_length = None
        await response.prepare(request)
        task = asyncio.ensure_future(self._tell(response, look, forever=forever))
        self._tasks.add(task)
        try:
            with suppress(ClientConnectionResetError, ConnectionError):
                await asyncio.wait([task])
                if not task.cancelled():
                    task.result()
        finally:
            task.cancel()
            self._tasks.discard(task)
        return response

    async def close(self) -> None:
        """End all of them."""
        for task in list(self._tasks):
            task.cancel()

    async def _tell(
        self, response: web.StreamResponse, look: Callable[[], Mapping[str, object]], *, forever: bool
    ) -> None:
        seen: Mapping[str, object] = {}
        while True:
            version = self._version.value
            now = look()
            for key in seen.keys() - now.keys():
                await response.write(_event("gone", key))
            for key, state in now.items():
                if seen.get(key) != state:
                    await response.write(_event("state", state))
            seen = now
            if not (now or forever):
                return
            if not await self._version.beyond(version, timeout=HEARTBEAT):
                await response.write(b":\n\n")
            await asyncio.sleep(PAUSE)


def _event(kind: str, data: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()
