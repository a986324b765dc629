"""Queue of one torrent's events for its single consumer."""

import asyncio
from collections.abc import AsyncIterator

from p2pmodel.swarm.engine import Event


class EventStream:
    """Delivers the events that are `put` after `open`, in order, until `close`."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Event | None] | None = None
        self._closed = False

    def open(self) -> AsyncIterator[Event]:
        """The events from now on. A second call ends the first iteration."""
        if self._queue is not None:
            self._queue.put_nowait(None)
        self._queue = asyncio.Queue()
        if self._closed:
            self._queue.put_nowait(None)
        return _drain(self._queue)

    def put(self, event: Event) -> None:
        """Add an event; without a consumer it is dropped."""
        if self._queue is not None and not self._closed:
            self._queue.put_nowait(event)

    def drop(self) -> None:
        """Forget the events so far that were not taken, and have no consumer until the next `open`."""
        self._queue = None

    def close(self) -> None:
        """End the iteration after the events so far."""
        self._closed = True
        if self._queue is not None:
            self._queue.put_nowait(None)


async def _drain(queue: asyncio.Queue[Event | None]) -> AsyncIterator[Event]:
    while (event := await queue.get()) is not None:
        yield event
