"""Which models a node's clients may have for their own token alone.

The node serves what its own tokens open, or its cluster holds, to all who reach it. What a client's token opened and
the node's did not may have come into a shared cache by that client; here it is remembered not to be served from there.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from p2pmodel.core.names import RepoId
from p2pmodel.core.single_flight import SingleFlight
from p2pmodel.store.state.withheld import Withheld

PATIENCE = 3.0
"""Seconds that a client waits for the answer; it is kept for the next one."""
ASK_EVERY = 60.0
"""Seconds after which it is asked again whether the node may have a model that is withheld."""


class TokenScope:
    """`opens` says whether the node may have a model by itself, as asked now."""

    def __init__(
        self,
        withheld: Withheld,
        opens: Callable[[RepoId], Awaitable[bool]],
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._withheld = withheld
        self._opens = opens
        self._now = now
        self._asking: SingleFlight[RepoId, None] = SingleFlight()
        self._asked: dict[RepoId, float] = {}

    async def close(self) -> None:
        """Stop asking."""
        await self._asking.close()

    async def withholds(self, repo: RepoId) -> bool:
        """Whether only who brings a token for `repo` may have it."""
        if self._withheld.covers(repo) and self._now() - self._asked.get(repo, float("-inf")) >= ASK_EVERY:
            self._asked[repo] = self._now()
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self._asking.join(repo, lambda: self._ask(repo))
        return self._withheld.covers(repo)

    async def withhold(self, repo: RepoId) -> None:
        """A client's token opened `repo`, and the node's did not. Durable on return."""
        self._asked[repo] = self._now()
        await asyncio.to_thread(self._withheld.add, repo)

    async def _ask(self, repo: RepoId) -> None:
        if await self._opens(repo):
            await asyncio.to_thread(self._withheld.drop, repo)
