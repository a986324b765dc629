"""Files of ModelScope that are the hub's: the same path, size and sha256, whatever their revision is called there.

ModelScope has revisions of its own, so it names no commit of the hub: another mirror, or a torrent, lists the files. It
gives the sha256 of every file, and the hub that of large ones. A small file is taken by path and size, and its bytes
decide: another content is no fault of ModelScope.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from cachetools import TTLCache

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.core.content.names import MODELS, RepoId
from p2pmodel.errors import EntryNotFound, RepoNotFound, Unavailable
from p2pmodel.http_pool import PeerResponse
from p2pmodel.origin.clock import Clock
from p2pmodel.origin.failures import Failed, Refused, naming, status_failure
from p2pmodel.origin.json_body import parsed
from p2pmodel.origin.mirrors.mirror import Mirror

BRANCH = "master"
"""Its default branch."""
KEEP = 600.0
"""Seconds for which a listing counts."""
WITHIN = 60.0
"""Seconds for one listing."""
_MOST = 256

Opened = Callable[[Mirror, str, Mapping[str, str]], AbstractAsyncContextManager[PeerResponse]]


@dataclass(frozen=True, slots=True)
class ModelScopeFile:
    """A file as ModelScope lists it: `revision` is the commit, of ModelScope, that changed it last."""

    size: int
    sha256: str
    revision: str


class ModelScopeFiles:
    """The listings of repositories. `opened` sends a request to a mirror."""

    def __init__(self, opened: Opened, clock: Clock) -> None:
        self._opened = opened
        self._listings: TTLCache[tuple[str, RepoId], Mapping[str, ModelScopeFile]] = TTLCache(
            _MOST, KEEP, timer=clock.now
        )
        self._one_at_a_time: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By mirror."""

    async def path(self, mirror: Mirror, repo: RepoId, file: ManifestFile) -> str:
        """Path and query of `file` below the endpoint of `mirror`. Raises Refused if it has none such, and Failed."""
        listing = await self._listing(mirror, repo)
        found = listing.get(file.path)
        if found is None:
            raise Refused("it has no such file", EntryNotFound)
        if found.size != file.size or (file.sha256 is not None and found.sha256 != file.sha256):
            raise Refused("its file is another one than the hub's", EntryNotFound)
        return f"{_api(repo)}?{urlencode({'Revision': found.revision, 'FilePath': file.path}, quote_via=quote)}"

    async def _listing(self, mirror: Mirror, repo: RepoId) -> Mapping[str, ModelScopeFile]:
        async with self._one_at_a_time[mirror.name]:
            known = self._listings.get((mirror.name, repo))
            if known is None:
                known = self._listings[mirror.name, repo] = await self._ask(mirror, repo)
            return known

    async def _ask(self, mirror: Mirror, repo: RepoId) -> Mapping[str, ModelScopeFile]:
        if repo.kind != MODELS:
            raise Refused("only models are taken from ModelScope", EntryNotFound)
        path = f"{_api(repo)}/files?Revision={BRANCH}&Recursive=true"
        try:
            async with asyncio.timeout(WITHIN), self._opened(mirror, path, {}) as response:
                with naming(response.proxy):
                    if response.status == 404:
                        raise Refused("it has no such repository", RepoNotFound)
                    if response.status != 200:
                        raise status_failure(response.status, response.headers, Clock().date())
                    found, _ = await parsed(response, listing_of)
                    return found
        except TimeoutError:
            raise Failed(f"no complete response within {WITHIN:.0f} s") from None


def listing_of(plain: object) -> dict[str, ModelScopeFile]:
    """Parse the answer to /api/v1/models/{id}/repo/files, by path. Raises TypeError, KeyError, or Refused where it is
    an error."""
    answer = _table(plain)
    if answer.get("Code") != 200:
        kind = RepoNotFound if answer.get("Code") in (404, 10010205001) else Unavailable
        raise Refused("it lists no files of this repository", kind)
    files = _table(answer["Data"])["Files"]
    if not isinstance(files, list):
        raise TypeError("expected a list")
    return {
        _text(entry, "Path"): ModelScopeFile(
            _size(entry), str(entry.get("Sha256") or ""), str(entry.get("Revision") or BRANCH)
        )
        for entry in map(_table, files)
        if entry.get("Type") != "tree"
    }


def _api(repo: RepoId) -> str:
    return f"/api/v1/models/{repo.name}/repo"


def _table(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise TypeError("expected an object")
    return value


def _text(entry: Mapping[str, object], key: str) -> str:
    value = entry[key]
    if not isinstance(value, str):
        raise TypeError("expected text")
    return value


def _size(entry: Mapping[str, object]) -> int:
    value = entry["Size"]
    if type(value) is not int:
        raise TypeError("expected a size")
    return value
