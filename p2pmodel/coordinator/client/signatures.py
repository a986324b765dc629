"""Signed statements at coordinators: asked of all at once, and published."""

import asyncio
import json
from collections.abc import Sequence

import aiohttp

from p2pmodel.coordinator.catalog_messages import SIGNATURES
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.transport import JSON_BODY, NETWORK_ERRORS, call, session
from p2pmodel.core.content.names import RepoId
from p2pmodel.http_pool import HttpPool, read_bounded
from p2pmodel.trust.signatures.statement import MAX_FILE, SignedStatement, read
from p2pmodel.trust.signatures.wire import Malformed


async def find_signatures(
    repo: RepoId, commit: str, coordinators: Sequence[Coordinator], timeout: float, *, http: HttpPool | None = None
) -> tuple[SignedStatement, ...]:
    """The statements that `coordinators` have over a snapshot. One that does not answer within `timeout` seconds has
    none; neither has one of an earlier version."""
    if not coordinators:
        return ()
    async with session(timeout, http) as shared:
        answers = await asyncio.gather(*(_ask(shared, each, repo, commit) for each in coordinators))
    return tuple(dict.fromkeys(signed for answer in answers for signed in answer))


async def publish_signature(coordinator: Coordinator, signed: SignedStatement, *, timeout: float) -> None:
    """Publish a statement. Raises AccessDenied, InvalidInput, NotFound (a coordinator of an earlier version),
    Unavailable."""
    body = json.dumps(signed.plain).encode()
    await call(coordinator, "PUT", SIGNATURES, headers=JSON_BODY, timeout=timeout, body=body, publishing=True)


async def _ask(
    http: aiohttp.ClientSession, coordinator: Coordinator, repo: RepoId, commit: str
) -> tuple[SignedStatement, ...]:
    try:
        async with http.get(
            f"{coordinator.url}{SIGNATURES}",
            params={"repo": str(repo), "commit": commit},
            headers=coordinator.headers,
            ssl=coordinator.tls,
            allow_redirects=False,
        ) as response:
            body = await read_bounded(response, MAX_FILE) if response.status == 200 else None
        return read(body) if body is not None else ()
    except (*NETWORK_ERRORS, Malformed):
        return ()
