"""The aliases of one coordinator: listed, moved, rolled back and removed."""

from collections.abc import Mapping
from typing import Any

from p2pmodel.coordinator.catalog_messages import ALIASES, ROLLBACK, Alias, alias_of
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.transport import call
from p2pmodel.core.content.names import Reference, RepoId
from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import InvalidInput, Unavailable

TIMEOUT = 10.0
"""Seconds in which a coordinator must answer."""
MAX_LIST = 64 << 20
"""Bytes of the longest list that is read."""


class AliasClient:
    """The aliases of one coordinator, with this user's tokens.

    Calls raise Unavailable for a coordinator that does not answer within `timeout` seconds, AccessDenied for a token
    that it does not accept, and what else it answers.
    """

    def __init__(self, coordinator: Coordinator, timeout: float = TIMEOUT) -> None:
        self._coordinator = coordinator
        self._timeout = timeout

    async def all(self, repo: RepoId | None = None) -> list[Alias]:
        """All aliases, or those of one repository."""
        plain = await self._call("GET", ALIASES, {"repo": str(repo)} if repo else {}, publishing=False)
        listed = plain.get("aliases") if isinstance(plain, dict) else None
        if not isinstance(listed, list):
            raise self._unreadable()
        return [self._alias(each) for each in listed]

    async def set(self, ref: Reference, revision: str) -> Alias:
        """Point the alias `ref` at the commit of `revision`. Raises NotFound, Forbidden, InvalidInput, NoSpace."""
        return self._alias(await self._call("PUT", ALIASES, _named(ref) | {"revision": revision}))

    async def rollback(self, ref: Reference) -> Alias:
        """Point the alias `ref` at the commit before its last move. Raises NotFound, Forbidden, Conflict."""
        return self._alias(await self._call("POST", ROLLBACK, _named(ref)))

    async def remove(self, ref: Reference) -> Alias:
        """Remove the alias `ref`. Returns what it was. Raises NotFound, Forbidden."""
        return self._alias(await self._call("DELETE", ALIASES, _named(ref)))

    async def _call(self, method: str, path: str, query: Mapping[str, str], *, publishing: bool = True) -> Any:
        body = await call(
            *(self._coordinator, method, path),
            timeout=self._timeout,
            query=query,
            publishing=publishing,
            limit=MAX_LIST,
        )
        try:
            return parse_json(body or b"")
        except ValueError:
            raise self._unreadable() from None

    def _alias(self, plain: Any) -> Alias:
        try:
            return alias_of(plain)
        except InvalidInput:
            raise self._unreadable() from None

    def _unreadable(self) -> Unavailable:
        return Unavailable(f"coordinator {self._coordinator}: its aliases cannot be read")


def _named(ref: Reference) -> dict[str, str]:
    return {"repo": str(ref.repo), "name": ref.revision}
