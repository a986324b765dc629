"""Publishing torrents in the catalogs of coordinators, and withdrawing wrong ones."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from p2pmodel.coordinator.assembly.messages import assembly_path
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.signatures import publish_signature
from p2pmodel.coordinator.client.transport import NETWORK_ERRORS, call, session
from p2pmodel.coordinator.tracker.sources import Source
from p2pmodel.core import notes
from p2pmodel.core.backoff import Backoff
from p2pmodel.errors import AccessDenied, P2PModelError
from p2pmodel.http_pool import HttpPool
from p2pmodel.trust.signatures.statement import SignedStatement

PUBLISH_TIMEOUT = 30.0
REPUBLISH_EVERY = 60.0
"""Seconds after which a seeder publishes again, for a coordinator that lost its catalog."""

REFUSALS = 2
"""Refused attempts after which a strict publisher gives up: a coordinator that starts has its tokens a moment later."""

_FIRST_RETRY = 1.0
_LAST_RETRY = 60.0


async def publish(
    coordinator: Coordinator,
    torrent: bytes,
    refs: Sequence[str] = (),
    *,
    source: Source | None = None,
    signatures: Sequence[SignedStatement] = (),
    timeout: float = PUBLISH_TIMEOUT,
) -> None:
    """Publish a .torrent at `coordinator`, and point the revision names `refs` at its commit.

    `source` is the endpoint from which leaseholders may download the snapshot. `signatures` of the torrent are
    published before it, so that no client finds it unsigned.

    Raises AccessDenied (also for a name that another publisher has set), Conflict (the catalog has another torrent of
    that commit), InvalidInput or BadTorrent (refused), Unavailable.
    """
    headers = {"Content-Type": "application/x-bittorrent"}
    if source:
        headers |= source.headers()
    query = [("revision", ref) for ref in refs]
    for signed in signatures:
        await publish_signature(coordinator, signed, timeout=timeout)
    await call(
        *(coordinator, "PUT", "/catalog"), headers=headers, timeout=timeout, query=query, body=torrent, publishing=True
    )


async def publish_source(
    coordinator: Coordinator, info_hash: str, source: Source, *, timeout: float = PUBLISH_TIMEOUT
) -> None:
    """Name an endpoint of a torrent in the catalog. Raises NotFound, AccessDenied, InvalidInput, Unavailable."""
    path = f"/sources/{info_hash}"
    await call(coordinator, "PUT", path, headers=source.headers(), timeout=timeout, body=b"")


async def keep_published(
    coordinators: Sequence[Coordinator],
    torrent: bytes,
    refs: Sequence[str] = (),
    *,
    source: Callable[[Coordinator], Source] | None = None,
    signatures: Sequence[SignedStatement] = (),
    on_note: Callable[[str], None] = lambda _line: None,
    on_published: Callable[[], None] = lambda: None,
    every: float = REPUBLISH_EVERY,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    strict: bool = False,
) -> None:
    """Publish at every coordinator now and every `every` seconds, until cancelled.

    After a failure the next attempt follows in 1 to 60 seconds. `on_note` is called when a coordinator's state changes,
    not at each attempt; `on_published` after each success. `source` returns the endpoint for the clients of a
    coordinator, in a thread: it may block. `strict`: raise AccessDenied if a coordinator
    refuses the first attempts for want of rights.
    """

    async def attempt(coordinator: Coordinator) -> None:
        named = await asyncio.to_thread(source, coordinator) if source else None
        await publish(coordinator, torrent, refs, source=named, signatures=signatures)
        on_published()

    async with asyncio.TaskGroup() as group:
        for coordinator in dict.fromkeys(coordinators):
            group.create_task(
                repeat(coordinator, partial(attempt, coordinator), on_note, every=every, sleep=sleep, strict=strict)
            )


async def report_wrong(
    coordinators: Sequence[Coordinator], digest: str, info_hash: str, timeout: float, http: HttpPool | None = None
) -> bool:
    """Report to `coordinators` that a torrent is wrong, which may be that of the assembly `digest`.

    Returns whether one of them had assembled it, and has withdrawn it. Failures of coordinators are ignored.
    """
    withdrawn = False
    async with session(timeout, http) as shared:
        for coordinator in coordinators:
            with contextlib.suppress(*NETWORK_ERRORS):
                report, query = f"{coordinator.url}/reports/{info_hash}", {"info_hash": info_hash}
                async with shared.put(report, headers=coordinator.headers, ssl=coordinator.tls, allow_redirects=False):
                    pass
                async with shared.delete(
                    f"{coordinator.url}{assembly_path(digest)}",
                    params=query,
                    headers=coordinator.headers,
                    ssl=coordinator.tls,
                    allow_redirects=False,
                ) as response:
                    withdrawn |= response.status == 204
    return withdrawn


async def repeat(
    coordinator: Coordinator,
    attempt: Callable[[], Coroutine[Any, Any, None]],
    on_note: Callable[[str], None],
    *,
    every: float = REPUBLISH_EVERY,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    strict: bool = False,
) -> None:
    """Call `attempt`, which publishes at `coordinator`, as `keep_published` says, until cancelled."""
    backoff, state, refusals = Backoff(_FIRST_RETRY, _LAST_RETRY), "", 0
    while True:
        try:
            await attempt()
            now, pause, strict = "published", every, False
            backoff.succeeded()
        except P2PModelError as error:
            refusals += isinstance(error, AccessDenied)
            if strict and refusals == REFUSALS:
                raise
            now, pause = f"not published: {error}", backoff.failed()
        if now != state:
            level = notes.info if now == "published" else notes.warning
            on_note(level("publish", f"coordinator {coordinator}: {now}", coordinator=str(coordinator)))
            state = now
        await sleep(pause)
