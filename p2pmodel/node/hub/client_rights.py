"""Whether a client itself may read a restricted model, by the word of a mirror about the client's own token.

The cache of a node, and what its own tokens open, are no right of its clients. A client's token goes to mirrors that
take such tokens, and only the answer is kept, for a bounded time: with the token's hash, in memory.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from cachetools import LRUCache

from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.tasks import SingleFlight
from p2pmodel.errors import AccessDenied, GatedLogin, GatedRepo, NotFound, P2PModelError, Unavailable
from p2pmodel.origin.relay.answer import RelayAnswer
from p2pmodel.origin.relay.request import HubPath, RelayRequest

PATIENCE = 6.0
"""Seconds that a client waits for the answer of the mirrors: hub clients wait 10 for the response."""
MOST_ANSWERS = 10_000


class AskedMirrors(Protocol):
    """Sends requests to mirrors: see `ManifestSource`."""

    @property
    def takes_client_tokens(self) -> bool: ...

    def relay(self, request: RelayRequest) -> AbstractAsyncContextManager[RelayAnswer]: ...


@dataclass(frozen=True, slots=True)
class _KnownRight:
    opens: bool
    until: float


class ClientRights:
    """`ttl`: seconds for which an answer counts. A client that lost its access is refused that much later at most."""

    def __init__(self, mirrors: AskedMirrors, ttl: float, *, now: Callable[[], float] = time.monotonic) -> None:
        self._mirrors = mirrors
        self._ttl = ttl
        self._now = now
        self._known: LRUCache[tuple[str, str], _KnownRight] = LRUCache(MOST_ANSWERS)
        self._asking: SingleFlight[tuple[str, str], bool] = SingleFlight()

    async def close(self) -> None:
        """Cancel running requests."""
        await self._asking.close()

    async def check(self, manifest: Manifest, token: str | None) -> str:
        """Return by which right a client with this hub token reads the snapshot.

        Raises GatedLogin without a token, GatedRepo if no mirror admits it, and Unavailable if none answers.
        """
        what = f"{manifest.repo} is private or gated"
        if token is None:
            raise GatedLogin(
                f"{what}, and the request has no hub token",
                hint="set HF_TOKEN to a token that may read it, or ask the operator for a rule in access.rules",
            )
        if not self._mirrors.takes_client_tokens:
            raise GatedRepo(
                f"{what}, and no mirror of this server takes tokens of clients",
                hint="the operator sets client_tokens of a mirror, or a rule in access.rules",
            )
        if not await self._opens(manifest, token):
            raise GatedRepo(f"{what}, and this token does not open it", hint="ask for access at the hub")
        return "its own hub token"

    async def _opens(self, manifest: Manifest, token: str) -> bool:
        key = hashlib.sha256(token.encode("utf-8", "replace")).hexdigest(), manifest.repo.folded
        known = self._known.get(key)
        if known is not None and self._now() < known.until:
            return known.opens
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._asking.join(key, lambda: self._ask(key, manifest, token))
        except TimeoutError:
            raise _unanswered(manifest) from None

    async def _ask(self, key: tuple[str, str], manifest: Manifest, token: str) -> bool:
        """Ask for a file, not for the listing: gated models have public listings."""
        began = self._now()
        path = HubPath(f"/{manifest.repo}/resolve/{manifest.commit}/{quote(manifest.files[0].path)}")
        try:
            async with self._mirrors.relay(RelayRequest("HEAD", path, token=token, within=PATIENCE)) as answer:
                opens = answer.by_client
        except (AccessDenied, NotFound):
            opens = False
        except P2PModelError:
            raise _unanswered(manifest) from None
        self._known[key] = _KnownRight(opens, began + self._ttl)
        return opens


def _unanswered(manifest: Manifest) -> Unavailable:
    return Unavailable(f"no mirror says whether this client may read {manifest.repo}", hint="try again later")
