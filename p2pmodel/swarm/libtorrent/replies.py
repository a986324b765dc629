"""Requests to the session with replies that come later as alerts."""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from p2pmodel.errors import P2PModelError, Unavailable


class PendingReplies:
    """Open requests by key. Replies with one key belong to its requests in order."""

    def __init__(self) -> None:
        self._open: dict[Hashable, deque[asyncio.Future[Any]]] = {}

    async def ask(self, key: Hashable, post: Callable[[], object], *, timeout: float, what: str) -> Any:
        """Call `post` and return the value that `answer` receives for `key`.

        Raises Unavailable naming `what` after `timeout` seconds. A request that timed out stays in the queue, so that
        its late reply does not go to the next one."""
        [future] = await self.ask_all([(key, post)], timeout=timeout, what=what)
        return future.result()

    async def ask_all(
        self, posts: Iterable[tuple[Hashable, Callable[[], object]]], *, timeout: float, what: str
    ) -> list[asyncio.Future[Any]]:
        """Like `ask` for several requests: returns when all have replies, which may be errors. `timeout` is for all of
        them together."""
        loop, futures = asyncio.get_running_loop(), []
        for key, post in posts:
            future: asyncio.Future[Any] = loop.create_future()
            self._open.setdefault(key, deque()).append(future)
            futures.append(future)
            post()
        late = set(futures)
        try:
            _, late = await asyncio.wait(futures, timeout=timeout)
        finally:
            for future in futures if late else ():
                _ = future.cancel() or future.exception()  # retrieved, so that asyncio does not warn
        if late:
            raise Unavailable(f"the swarm engine did not {what} within {timeout:g} seconds")
        return futures

    def answer(self, key: Hashable, value: object = None) -> None:
        """Complete the oldest request of `key`, if any."""
        future = self._take(key)
        if future and not future.done():
            future.set_result(value)

    def refuse(self, key: Hashable, error: P2PModelError) -> None:
        """Raise `error` from the oldest request of `key`, if any."""
        future = self._take(key)
        if future and not future.done():
            future.set_exception(error)

    def refuse_all(self, error: P2PModelError, *, kind: type = object) -> None:
        """Raise `error` from every open request with a key of type `kind`."""
        for key in [key for key in self._open if isinstance(key, kind)]:
            while key in self._open:
                self.refuse(key, error)

    def _take(self, key: Hashable) -> asyncio.Future[Any] | None:
        queue = self._open.get(key)
        if not queue:
            return None
        future = queue.popleft()
        if not queue:
            del self._open[key]
        return future
