"""Attempts to connect to the addresses that clients announce: a node that no peer can reach is told so.

A client chooses the port, never the host: that is the address its request comes from, or one that the settings let it
claim. So no client makes the coordinator connect to a third machine. A connection sends nothing and is closed at once.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from cachetools import TLRUCache

from p2pmodel.core.network.addresses import ListenAddress, is_loopback, is_reachable, neighbourhood

PROBE_SECONDS = 1.5
"""Seconds in which a connection must be made."""
GOOD_FOR = 300.0
BAD_FOR = 5.0
"""Seconds for which a result is used again."""
MOST_AT_ONCE = 128
MOST_OF_ADDRESS = 8
"""Bounds on attempts at a time, in all and to one address; beyond them an address counts as reachable."""
_MOST_KNOWN = 65_536


async def connect(host: str, port: int) -> str:
    """Why no connection to that IP address can be made; "" if one can."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return "timed out"
    except OSError as error:
        return os.strerror(error.errno).lower() if error.errno else "no connection"
    writer.transport.abort()
    return ""


class ConnectionProbes:
    """The probes of one coordinator, and their recent results. Not `enabled`: every address counts as reachable."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        connect: Callable[[str, int], Awaitable[str]] = connect,
        *,
        enabled: bool = True,
    ) -> None:
        self._enabled = enabled
        self._connect = connect
        self._known: TLRUCache[ListenAddress, str] = TLRUCache(
            _MOST_KNOWN, lambda _, failure, now: now + (BAD_FOR if failure else GOOD_FOR), timer=clock
        )
        self._running: dict[ListenAddress, asyncio.Task[str]] = {}
        self._of_address: Counter[str] = Counter()

    async def failure(self, address: ListenAddress, source: str, *, again: bool = False) -> str:
        """Why peers cannot connect to `address`, which belongs to the client at the IP address `source`.

        "" if they can, or if it is not known. `again`: no result of before is used.
        """
        if not self._enabled:
            return ""
        if not is_reachable(address.host) and not (is_loopback(address.host) and is_loopback(source)):
            return ""
        if not again and (known := self._known.get(address)) is not None:
            return known
        task = self._running.get(address)
        if task is None:
            place = neighbourhood(address.host)
            if len(self._running) >= MOST_AT_ONCE or self._of_address[place] >= MOST_OF_ADDRESS:
                return ""
            self._of_address[place] += 1
            task = self._running[address] = asyncio.ensure_future(self._probe(address, place))
        return await asyncio.shield(task)

    async def _probe(self, address: ListenAddress, place: str) -> str:
        try:
            failure = await self._connect(address.host, address.port)
        finally:
            del self._running[address]
            self._of_address[place] -= 1
            if not self._of_address[place]:
                del self._of_address[place]
        self._known[address] = failure
        return failure
