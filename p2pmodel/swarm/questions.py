"""Waiting for the engine: a question posted to it, answered later by an alert."""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

from p2pmodel.errors import P2PModelError, Unavailable


class Questions:
    """Open questions by key. Those of one key are answered in the order they were asked."""

    def __init__(self) -> None:
        self._open: dict[Hashable, deque[asyncio.Future[Any]]] = {}

    async def ask(self, key: Hashable, post: Callable[[], object], *, timeout: float, what: str) -> Any:
        """Call `post` and return what `answer` is given for `key`.

        Raises Unavailable naming `what` after `timeout` seconds. A question given up keeps its place in the line, so
        that its late answer does not reach the next one.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._open.setdefault(key, deque()).append(future)
        post()
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            raise Unavailable(f"the swarm engine did not {what} within {timeout:g} seconds") from None

    def answer(self, key: Hashable, value: object = None) -> None:
        """Answer the oldest question of `key`, if there is one."""
        future = self._take(key)
        if future and not future.done():
            future.set_result(value)

    def refuse(self, key: Hashable, error: P2PModelError) -> None:
        """Raise `error` from the oldest question of `key`, if there is one."""
        future = self._take(key)
        if future and not future.done():
            future.set_exception(error)

    def refuse_all(self, error: P2PModelError, *, kind: type = object) -> None:
        """Raise `error` from every open question whose key is a `kind`."""
        for key in [key for key in self._open if isinstance(key, kind)]:
            while key in self._open:
                self.refuse(key, error)

    def _take(self, key: Hashable) -> asyncio.Future[Any] | None:
        line = self._open.get(key)
        if not line:
            return None
        future = line.popleft()
        if not line:
            del self._open[key]
        return future
