"""Reading the catalogs of coordinators: the torrent of one snapshot, or the list of all torrents."""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from p2pmodel.coordinator.client.transport import (
    NETWORK_ERRORS,
    reason,
    refusal,
    refused,
    session,
    unreachable,
)
from p2pmodel.coordinator.client.urls import public_name
from p2pmodel.core.names import Reference
from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import BadTorrent, NotFound, P2PModelError, Unavailable
from p2pmodel.http_pool import HttpPool, read_bounded
from p2pmodel.swarm.torrents import Format, Metainfo, parse

MAX_TORRENT = 16 << 20
"""Bytes of the largest torrent that is read."""
MAX_CATALOG = 4 << 20
"""Bytes of the longest list that is read."""


@dataclass(frozen=True, slots=True)
class CatalogAnswer:
    """The first valid torrent, or None; `reasons` has a line for every coordinator without one.

    `lacking`: coordinators that answered, and have no torrent.
    """

    metainfo: Metainfo | None
    reasons: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Wanted:
    ref: Reference
    format: Format
    without: frozenset[str]


async def find(
    ref: Reference,
    coordinators: Sequence[str],
    timeout: float,
    *,
    format: Format = "v2",  # noqa: A002
    without: Iterable[str] = (),
    http: HttpPool | None = None,
) -> CatalogAnswer:
    """Request the torrent of `ref` from all `coordinators` at once; the first valid one within `timeout` seconds wins.

    A valid answer is a v2 or hybrid torrent of that repository, and of that commit if `ref` is pinned. Failures of
    coordinators raise nothing. `without`: info-hashes of torrents that are not wanted. `http` are connections to share.
    """
    if not coordinators:
        return CatalogAnswer(None)
    reasons: dict[str, str] = dict.fromkeys(coordinators, f"no answer within {timeout:g} s")
    lacking: set[str] = set()
    wanted = _Wanted(ref, format, frozenset(without))
    async with session(timeout, http) as shared:
        requests = {asyncio.create_task(_request(shared, url, wanted)): url for url in reasons}
        try:
            async with asyncio.timeout(timeout):
                metainfo = await _first_valid(requests, reasons, lacking)
        except TimeoutError:
            metainfo = None
        finally:
            await _cancel(requests)
    lines = tuple(f"{public_name(url)}: {why}" for url, why in reasons.items())
    return CatalogAnswer(metainfo, lines, tuple(url for url in reasons if url in lacking))


async def list_torrents(url: str, timeout: float) -> list[dict[str, Any]]:
    """All torrents of the coordinator at `url`, as its JSON describes them, unchecked.

    Raises Unavailable, AccessDenied, or what else the coordinator answers.
    """
    try:
        async with session(timeout) as http, http.get(f"{url}/catalog", allow_redirects=False) as response:
            if response.status != 200:
                raise refused(url, await refusal(response))
            body = await read_bounded(response, MAX_CATALOG)
    except NETWORK_ERRORS as error:
        raise unreachable(url, error) from None
    with contextlib.suppress(ValueError, TypeError, KeyError):
        if body is not None:
            return [each for each in parse_json(body)["torrents"] if isinstance(each, dict)]
    raise Unavailable(f"coordinator {public_name(url)}: its catalog cannot be read")


async def _first_valid(
    requests: dict[asyncio.Task[Metainfo], str], reasons: dict[str, str], lacking: set[str]
) -> Metainfo | None:
    pending = set(requests)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            error = task.exception()
            if error is None:
                return task.result()
            if not isinstance(error, P2PModelError):
                raise error
            reasons[requests[task]] = error.what
            if isinstance(error, NotFound):
                lacking.add(requests[task])
    return None


async def _request(http: aiohttp.ClientSession, url: str, wanted: _Wanted) -> Metainfo:
    ref = wanted.ref
    query = [("repo", str(ref.repo)), ("revision", ref.revision), ("format", wanted.format)]
    query += [("except", info_hash) for info_hash in sorted(wanted.without)]
    try:
        async with http.get(f"{url}/catalog", params=query, allow_redirects=False) as response:
            if response.status != 200:
                raise await refusal(response)
            data = await read_bounded(response, MAX_TORRENT)
    except NETWORK_ERRORS as error:
        raise Unavailable(reason(error)) from None
    if data is None:
        raise BadTorrent(f"its answer is larger than {MAX_TORRENT} bytes")
    return await asyncio.to_thread(_parsed, data, wanted)


def _parsed(data: bytes, wanted: _Wanted) -> Metainfo:
    metainfo, ref = parse(data), wanted.ref
    if metainfo.info_hash in wanted.without:
        raise NotFound("it has no other torrent of that commit")
    manifest = metainfo.manifest
    if manifest.repo != ref.repo or (ref.pinned and manifest.commit != ref.revision):
        raise BadTorrent(f"it answered with a torrent of {manifest.repo}@{manifest.commit}")
    return metainfo


async def _cancel(tasks: dict[asyncio.Task[Metainfo], str]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
