"""Server-sent events: the latest state of each key whenever it differs from the one sent before.

States in between are skipped, so a slow client needs no buffer and is never behind.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress

from aiohttp import ClientConnectionResetError, web

from p2pmodel.core.tasks import Version
from p2pmodel.errors import Unavailable

HEARTBEAT = 5.0
"""Seconds of silence after which a comment is sent, to notice a disconnected client."""
PAUSE = 0.1
"""Default of the seconds between two updates."""
MOST = 100
"""Bound on concurrent streams."""


class EventStreams:
    """The streams of one application. A stream ends when its client disconnects, its last key is gone, or `close`.

    `pause`: seconds between two updates at least.
    """

    def __init__(self, version: Version, *, pause: float = PAUSE) -> None:
        self._version = version
        self._pause = pause
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(
        self, request: web.Request, states: Callable[[], Mapping[str, object]], *, forever: bool
    ) -> web.StreamResponse:
        """Stream every change in the mapping that `states` returns: `event: state` with the value, `event: gone` with
        the key. Unless `forever`, the stream ends when the mapping is empty."""
        if len(self._tasks) >= MOST:
            raise Unavailable(f"there are {MOST} event streams already", hint="try again later")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        response.content_length = None
        await response.prepare(request)
        task = asyncio.ensure_future(self._send(response, states, forever=forever))
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
        """End all streams."""
        for task in list(self._tasks):
            task.cancel()

    async def _send(
        self, response: web.StreamResponse, states: Callable[[], Mapping[str, object]], *, forever: bool
    ) -> None:
        seen: Mapping[str, object] = {}
        clock = asyncio.get_running_loop().time
        written = clock()
        while True:
            version = self._version.value
            now = states()
            events = [_event("gone", key) for key in seen.keys() - now.keys()]
            events += [_event("state", state) for key, state in now.items() if seen.get(key) != state]
            seen = now
            # By time: the version also grows with changes that this stream does not show.
            if not events and clock() - written >= HEARTBEAT:
                events = [b":\n\n"]
            for event in events:
                await response.write(event)
                written = clock()
            if not (now or forever):
                return
            await self._version.beyond(version, timeout=max(0.0, written + HEARTBEAT - clock()))
            await asyncio.sleep(self._pause)


def _event(kind: str, data: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()
