"""Events of one torrent on their way to their one consumer."""

import asyncio
from collections.abc import AsyncIterator

from p2pmodel.swarm.engine import Event


class EventStream:
    """What is `put` after `open` was called reaches that caller, in order, until `close`."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Event | None] | None = None
        self._closed = False

    def open(self) -> AsyncIterator[Event]:
        """The events from now on. A second call takes over from the first."""
        if self._queue is not None:
            self._queue.put_nowait(None)
        self._queue = asyncio.Queue()
        if self._closed:
            self._queue.put_nowait(None)
        return _drain(self._queue)

    def put(self, event: Event) -> None:
        """Pass an event on; without a consumer it is lost."""
        if self._queue is not None and not self._closed:
            self._queue.put_nowait(event)

    def close(self) -> None:
        """End the consumer's iteration after the events before it."""
        self._closed = True
        if self._queue is not None:
            self._queue.put_nowait(None)


async def _drain(queue: asyncio.Queue[Event | None]) -> AsyncIterator[Event]:
    while (event := await queue.get()) is not None:
        yield event
