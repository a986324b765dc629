"""Models that clients of a node may read only with their own token.

The node serves every client the models that its own tokens open or that its cluster holds. A model that only a
client's token opened may be in a shared cache because of that client. It is recorded here and not served from there.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from p2pmodel.core.content.names import RepoId
from p2pmodel.core.tasks import SingleFlight
from p2pmodel.store.state.judgements import WithheldModels

PATIENCE = 3.0
"""Seconds that a client waits for the check; its result is kept for the next request."""
CHECK_EVERY = 60.0
"""Seconds between two checks whether the node itself may read a withheld model."""


class TokenScope:
    """`opens(repo)` checks whether the node itself may read a model."""

    def __init__(
        self,
        withheld: WithheldModels,
        opens: Callable[[RepoId], Awaitable[bool]],
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._withheld = withheld
        self._opens = opens
        self._now = now
        self._checks: SingleFlight[str, None] = SingleFlight()
        self._checked: dict[str, float] = {}
        """By repository, whatever its spelling."""

    async def close(self) -> None:
        """Cancel running checks."""
        await self._checks.close()

    async def withholds(self, repo: RepoId) -> bool:
        """Whether `repo` is served only to clients with a token for it."""
        if self._withheld.covers(repo) and self._now() - self._checked.get(repo.folded, float("-inf")) >= CHECK_EVERY:
            self._checked[repo.folded] = self._now()
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self._checks.join(repo.folded, lambda: self._check(repo))
        return self._withheld.covers(repo)

    async def withhold(self, repo: RepoId) -> None:
        """A client's token opened `repo`, and the node's did not. Durable on return."""
        self._checked[repo.folded] = self._now()
        await asyncio.to_thread(self._withheld.add, repo)

    async def _check(self, repo: RepoId) -> None:
        if await self._opens(repo):
            await asyncio.to_thread(self._withheld.drop, repo)
