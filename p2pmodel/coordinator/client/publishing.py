"""Publishing torrents in the catalogs of coordinators, and withdrawing wrong ones."""

import asyncio
import contextlib
import io
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from p2pmodel.coordinator.assembly_messages import assembly_path
from p2pmodel.coordinator.client.transport import NETWORK_ERRORS, refusal, refused, session, unreachable
from p2pmodel.coordinator.client.urls import public_name
from p2pmodel.coordinator.sources import Source
from p2pmodel.core import notes
from p2pmodel.core.backoff import Backoff
from p2pmodel.errors import P2PModelError
from p2pmodel.http_pool import HttpPool

PUBLISH_TIMEOUT = 30.0
REPUBLISH_EVERY = 60.0
"""Seconds after which a seeder publishes again, for a coordinator that lost its catalog."""

_FIRST_RETRY = 1.0
_LAST_RETRY = 60.0


async def publish(
    url: str,
    torrent: bytes,
    refs: Sequence[str] = (),
    token: str | None = None,
    *,
    source: Source | None = None,
    timeout: float = PUBLISH_TIMEOUT,
) -> None:
    """Publish a .torrent at the coordinator `url`, and point the revision names `refs` at its commit.

    `source` is the endpoint from which leaseholders may download the snapshot.

    Raises AccessDenied, Conflict (the catalog has another torrent of that commit), InvalidInput or BadTorrent
    (refused), Unavailable.
    """
    headers = {"Content-Type": "application/x-bittorrent"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    if source:
        headers |= source.headers()
    query = [("revision", ref) for ref in refs]
    try:
        async with (
            session(timeout) as http,
            http.put(
                f"{url}/catalog", params=query, data=io.BytesIO(torrent), headers=headers, allow_redirects=False
            ) as response,
        ):
            if response.status >= 300:
                raise refused(url, await refusal(response))
    except NETWORK_ERRORS as error:
        raise unreachable(url, error) from None


async def keep_published(
    coordinators: Sequence[str],
    torrent: bytes,
    refs: Sequence[str] = (),
    token: str | None = None,
    *,
    source: Source | None = None,
    on_note: Callable[[str], None] = lambda _line: None,
    on_published: Callable[[], None] = lambda: None,
    every: float = REPUBLISH_EVERY,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Publish at every coordinator now and every `every` seconds, until cancelled.

    After a failure the next attempt follows in 1 to 60 seconds. `on_note` is called when a coordinator's state changes,
    not at each attempt; `on_published` after each success.
    """

    async def attempt(url: str) -> None:
        await publish(url, torrent, refs, token, source=source)
        on_published()

    async with asyncio.TaskGroup() as group:
        for url in dict.fromkeys(coordinators):
            group.create_task(_keep(url, partial(attempt, url), on_note, every, sleep))


async def report_wrong(
    coordinators: Sequence[str], digest: str, info_hash: str, timeout: float, http: HttpPool | None = None
) -> bool:
    """Report to `coordinators` that the torrent of the assembly `digest` is wrong.

    Returns whether one of them had assembled it, and has withdrawn it. Failures of coordinators are ignored.
    """
    withdrawn = False
    async with session(timeout, http) as shared:
        for url in coordinators:
            with contextlib.suppress(*NETWORK_ERRORS):
                query = {"info_hash": info_hash}
                async with shared.delete(
                    f"{url}{assembly_path(digest)}", params=query, allow_redirects=False
                ) as response:
                    withdrawn |= response.status == 204
    return withdrawn


async def _keep(
    url: str,
    attempt: Callable[[], Coroutine[Any, Any, None]],
    on_note: Callable[[str], None],
    every: float,
    sleep: Callable[[float], Awaitable[object]],
) -> None:
    backoff, state = Backoff(_FIRST_RETRY, _LAST_RETRY), ""
    while True:
        try:
            await attempt()
            now, pause = "published", every
            backoff.succeeded()
        except P2PModelError as error:
            now, pause = f"not published: {error}", backoff.failed()
        if now != state:
            level = notes.info if now == "published" else notes.warning
            on_note(level("publish", f"coordinator {public_name(url)}: {now}", coordinator=public_name(url)))
            state = now
        await sleep(pause)
