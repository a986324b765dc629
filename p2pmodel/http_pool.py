"""The outgoing HTTP connections of one use case: one connector under sessions with different timeouts."""

from types import TracebackType
from typing import Any, Self

import aiohttp

DNS_SECONDS = 60
"""Seconds for which a resolved address is used."""


class HttpPool:
    """Connections that several sessions share. `async with` opens and closes it; it may be opened again afterwards.

    The number of connections is unbounded here: the users of a session bound it by mirror.
    """

    def __init__(self) -> None:
        self._connector: aiohttp.TCPConnector | None = None

    async def __aenter__(self) -> Self:
        self._connector = _new_connector()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        connector, self._connector = self._connector, None
        if connector is not None:
            await connector.close()

    @property
    def connector(self) -> aiohttp.TCPConnector:
        """The shared connector; the pool must be open."""
        assert self._connector is not None
        return self._connector


def session(pool: HttpPool | None, **options: Any) -> aiohttp.ClientSession:
    """A session on the connections of `pool`, or on its own without one. `options` as aiohttp.ClientSession takes."""
    if pool is None:
        return aiohttp.ClientSession(connector=_new_connector(), **options)
    return aiohttp.ClientSession(connector=pool.connector, connector_owner=False, **options)


def _new_connector() -> aiohttp.TCPConnector:
    return aiohttp.TCPConnector(limit=0, ttl_dns_cache=DNS_SECONDS)
