"""Verification of a mirror's sync log, from a file or over HTTP, line by line: years of log need not fit in memory."""

import asyncio
from pathlib import Path

import aiohttp
from aiohttp.http import HttpProcessingError

from p2pmodel.core.files.hash_chain import MAX_LINE, LogCheck, LogHead
from p2pmodel.core.network.proxies import DIRECT, Proxies
from p2pmodel.core.network.urls import names_user, shown
from p2pmodel.errors import AccessDenied, IntegrityError, InvalidInput, NotFound, Unavailable
from p2pmodel.http_pool import session, through
from p2pmodel.origin.failures import reason_of
from p2pmodel.store.state.sync_log import verify_log

ANSWER_WITHIN = 30.0


async def check_log(
    where: str, token: str | None = None, *, expect: str | None = None, proxies: Proxies = DIRECT
) -> LogHead:
    """Check every line of the log at `where`, a file or the URL of `/sync-log`; one line must have the hash `expect`.
    `proxies`: the rule for the proxy.

    Raises IntegrityError for the first wrong line; LocalResource, Unavailable, NotFound or AccessDenied if
    it cannot be read.
    """
    if not where.startswith(("http://", "https://")):
        return await asyncio.to_thread(verify_log, Path(where), expect)
    if names_user(where):
        raise InvalidInput(
            f"'{shown(where)}' contains a user name or password", hint="give --token-file or --token-env"
        )
    timeout = aiohttp.ClientTimeout(total=None, connect=ANSWER_WITHIN, sock_read=ANSWER_WITHIN)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    proxy = proxies.of(where)
    by = f" by proxy {proxy.name}" if proxy else ""
    try:
        async with (
            session(None, timeout=timeout, read_bufsize=MAX_LINE, headers={"Accept-Encoding": "identity"}) as http,
            http.get(where, allow_redirects=False, **through(proxy, where, headers)) as answer,
        ):
            _check_status(answer, where, by)
            return await _check_lines(answer.content, LogCheck(expect))
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(f"{shown(where)} cannot be read{by}: {reason_of(error)}") from None


def _check_status(answer: aiohttp.ClientResponse, where: str, by: str) -> None:
    if answer.status in (401, 403):
        raise AccessDenied(f"{shown(where)} needs a token", hint="give --token-file or --token-env")
    if answer.status == 404:
        raise NotFound(f"no sync log at {shown(where)} (HTTP 404{by})")
    if answer.status != 200:
        raise Unavailable(f"{shown(where)} cannot be read: HTTP {answer.status}{by}")


async def _check_lines(content: aiohttp.StreamReader, checking: LogCheck) -> LogHead:
    while True:
        try:
            line = await content.readuntil(b"\n")
        except (ValueError, HttpProcessingError):
            raise IntegrityError(f"line {checking.head.seq + 1} of the sync log is damaged") from None
        if not line:
            return checking.end()
        await asyncio.to_thread(checking.feed, line)
