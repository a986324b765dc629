"""One step on many hosts: a bounded number at a time, and a failure of one host is its own."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from p2pmodel.cluster.bootstrap.roster import HostEntry
from p2pmodel.cluster.launcher import Launcher, RemoteHost
from p2pmodel.errors import P2PModelError, Unavailable

Step = Callable[[RemoteHost, HostEntry], Awaitable[None]]


class FanOut:
    """Connects to at most `width` hosts at a time."""

    def __init__(self, launcher: Launcher, width: int) -> None:
        self._launcher = launcher
        self._turns = asyncio.Semaphore(width)

    async def each(self, entries: Iterable[HostEntry], step: Step, *, within: float, what: str) -> None:
        """Do `step` on each host. One that raises, or does not end `within` seconds, has failed."""
        async with asyncio.TaskGroup() as group:
            for entry in list(entries):
                group.create_task(self._one(entry, step, within, what))

    async def on(self, name: str, step: Callable[[RemoteHost], Awaitable[None]], *, within: float, what: str) -> None:
        """Do `step` on one host. Raises what it raises, and Unavailable after `within` seconds."""
        async with self._turns:
            try:
                async with asyncio.timeout(within), self._launcher.connect(name) as host:
                    await step(host)
            except TimeoutError:
                raise Unavailable(f"{name}: {what} has not ended within {within:g} s", hint="look there") from None

    async def _one(self, entry: HostEntry, step: Step, within: float, what: str) -> None:
        try:
            await self.on(entry.name, lambda host: step(host, entry), within=within, what=what)
        except P2PModelError as error:
            entry.failed(error)
