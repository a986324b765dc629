"""The end of a server: no connection is lost between its acceptance and its handler.

asyncio accepts a connection in one step of its loop and gives it a handler in a later one. When the server is closed in
between, the handler never begins, and the connection stays open without one.
"""

import asyncio
from typing import Any

from aiohttp import web

_STEPS = 2
"""Steps of the loop from the acceptance of a connection to the start of its handler."""


class ListeningRunner(web.AppRunner):
    """Runs an application on the listeners that `listen` opens."""

    def __init__(self, app: web.Application, **options: Any) -> None:
        super().__init__(app, **options)
        self._listeners: list[asyncio.Server] = []

    @property
    def addresses(self) -> list[Any]:
        """The bound addresses, as sockets name them."""
        return [line.getsockname() for listener in self._listeners for line in listener.sockets]

    async def listen(self, **options: Any) -> None:
        """Accept connections; `options` as `loop.create_server` takes. The runner is set up."""
        assert self.server is not None
        loop = asyncio.get_running_loop()
        self._listeners.append(await loop.create_server(self.server, backlog=128, **options))

    async def cleanup(self) -> None:
        """Accept no more connections, let the accepted ones begin, and end as aiohttp does."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            for line in listener.sockets:
                loop.remove_reader(line.fileno())
        try:
            for _ in range(_STEPS):
                await asyncio.sleep(0)
        finally:
            for listener in self._listeners:
                listener.close()
            self._listeners.clear()
        await super().cleanup()
