"""Reading the catalogs of coordinators: the torrent of one snapshot, or the list of all torrents."""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp

from p2pmodel.coordinator.catalog_messages import NAME_HEADER, check_alias
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.transport import (
    NETWORK_ERRORS,
    call,
    reason,
    refusal,
    refused,
    session,
)
from p2pmodel.core.content.names import Reference, VersionRange, is_version
from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import AccessDenied, BadTorrent, InvalidInput, NotFound, P2PModelError, Unavailable
from p2pmodel.http_pool import HttpPool, read_bounded
from p2pmodel.swarm.torrents import Format, Metainfo, parse

MAX_TORRENT = 16 << 20
"""Bytes of the largest torrent that is read."""
MAX_CATALOG = 4 << 20
"""Bytes of the longest list that is read."""


@dataclass(frozen=True, slots=True)
class CatalogAnswer:
    """The first valid torrent, or None; `reasons` has a line for every coordinator without one.

    `lacking`: coordinators that answered, and have no torrent. `name`: the alias by which a coordinator found the
    torrent, or the version in a range; "" for another revision.
    """

    metainfo: Metainfo | None
    reasons: tuple[str, ...] = ()
    lacking: tuple[Coordinator, ...] = ()
    name: str = ""

    @property
    def unanswered(self) -> bool:
        """Whether a coordinator neither has the torrent nor says that it has none."""
        return self.metainfo is None and len(self.reasons) > len(self.lacking)


@dataclass(slots=True)
class _Search:
    """The coordinators of one search; `reasons` says why each has no torrent."""

    reasons: dict[Coordinator, str]
    lacking: set[Coordinator] = field(default_factory=set)
    refused: AccessDenied | None = None

    def failed(self, coordinator: Coordinator, error: P2PModelError) -> None:
        self.reasons[coordinator] = error.what
        if isinstance(error, NotFound):
            self.lacking.add(coordinator)
        elif isinstance(error, AccessDenied):
            named = refused(coordinator, error)
            assert isinstance(named, AccessDenied)
            self.refused = named


@dataclass(frozen=True, slots=True)
class _Wanted:
    ref: Reference
    format: Format
    without: frozenset[str]


async def find(
    ref: Reference,
    coordinators: Sequence[Coordinator],
    timeout: float,
    *,
    format: Format = "v2",  # noqa: A002
    without: Iterable[str] = (),
    http: HttpPool | None = None,
) -> CatalogAnswer:
    """Request the torrent of `ref` from all `coordinators` at once; the first valid one within `timeout` seconds wins.

    A valid answer is a v2 or hybrid torrent of that repository, and of that commit if `ref` is pinned. Failures of
    coordinators raise nothing, except that AccessDenied is raised if no coordinator accepts this node: without one, all
    nodes would use the slow link. `without`: info-hashes of torrents that are not wanted. `http` are connections to
    share.
    """
    if not coordinators:
        return CatalogAnswer(None)
    search = _Search(dict.fromkeys(coordinators, f"no answer within {timeout:g} s"))
    wanted = _Wanted(ref, format, frozenset(without))
    async with session(timeout, http) as shared:
        requests = {asyncio.create_task(_request(shared, each, wanted)): each for each in search.reasons}
        try:
            async with asyncio.timeout(timeout):
                found = await _first_valid(requests, search)
        except TimeoutError:
            found = None
        finally:
            await _cancel(requests)
    if found is None and search.refused and not search.lacking:
        raise search.refused
    lines = tuple(f"{coordinator}: {why}" for coordinator, why in search.reasons.items())
    lacking = tuple(each for each in search.reasons if each in search.lacking)
    return CatalogAnswer(None, lines, lacking) if found is None else replace(found, reasons=lines, lacking=lacking)


async def list_torrents(coordinator: Coordinator, timeout: float) -> list[dict[str, Any]]:
    """All torrents of `coordinator`, as its JSON describes them, unchecked.

    Raises Unavailable, AccessDenied, or what else the coordinator answers.
    """
    body = await call(coordinator, "GET", "/catalog", timeout=timeout, limit=MAX_CATALOG)
    with contextlib.suppress(ValueError, TypeError, KeyError):
        if body is not None:
            return [each for each in parse_json(body)["torrents"] if isinstance(each, dict)]
    raise Unavailable(f"coordinator {coordinator}: its catalog cannot be read")


async def _first_valid(
    requests: dict[asyncio.Task[CatalogAnswer], Coordinator], search: "_Search"
) -> CatalogAnswer | None:
    pending = set(requests)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            error = task.exception()
            if error is None:
                return task.result()
            if not isinstance(error, P2PModelError):
                raise error
            search.failed(requests[task], error)
    return None


async def _request(http: aiohttp.ClientSession, coordinator: Coordinator, wanted: _Wanted) -> CatalogAnswer:
    ref = wanted.ref
    query = [("repo", str(ref.repo)), ("revision", ref.revision), ("format", wanted.format)]
    query += [("except", info_hash) for info_hash in sorted(wanted.without)]
    try:
        async with http.get(
            f"{coordinator.url}/catalog",
            params=query,
            headers=coordinator.headers,
            ssl=coordinator.tls,
            allow_redirects=False,
        ) as response:
            if response.status != 200:
                raise await refusal(response)
            name = _name(response, ref)
            data = await read_bounded(response, MAX_TORRENT)
    except NETWORK_ERRORS as error:
        raise Unavailable(reason(error)) from None
    if data is None:
        raise BadTorrent(f"its answer is larger than {MAX_TORRENT} bytes")
    return CatalogAnswer(await asyncio.to_thread(_parsed, data, wanted), name=name)


def _name(response: aiohttp.ClientResponse, ref: Reference) -> str:
    """The name in the answer: `ref` itself, if it can be an alias; a version if `ref` is a range."""
    name = response.headers.get(NAME_HEADER, "")
    if isinstance(ref, VersionRange) and is_version(name):
        return name
    if not name and not isinstance(ref, VersionRange):
        return ""
    try:
        if check_alias(name) == ref.revision:
            return name
    except InvalidInput:
        pass
    raise BadTorrent("it answered with the torrent of another name")


def _parsed(data: bytes, wanted: _Wanted) -> Metainfo:
    metainfo, ref = parse(data), wanted.ref
    if metainfo.info_hash in wanted.without:
        raise NotFound("it has no other torrent of that commit")
    manifest = metainfo.manifest
    if not manifest.repo.is_spelling_of(ref.repo) or (ref.pinned and manifest.commit != ref.revision):
        raise BadTorrent(f"it answered with a torrent of {manifest.repo}@{manifest.commit}")
    return metainfo


async def _cancel(tasks: dict[asyncio.Task[CatalogAnswer], Coordinator]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
