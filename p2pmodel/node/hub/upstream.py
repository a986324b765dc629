"""Revisions as upstream defines them: recorded on disk, refreshed when old, and used while upstream does not answer.

- A commit never changes: once known, it is not requested again.
- A branch is requested again after `ttl` seconds. Until then, and whenever upstream does not answer, the recorded
  revision is served (stale-if-error). "Not found" and "access denied" are answers and are passed on.
- A snapshot that came into the cache without upstream (an import) stays, whatever upstream answers.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cachetools import LRUCache, TTLCache

from p2pmodel.core import notes
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference, RepoId
from p2pmodel.core.tasks import SingleFlight
from p2pmodel.errors import IntegrityError, NotFound, P2PModelError, Unavailable
from p2pmodel.node.reporter import Reporter
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.state.revisions import known_revision, record_revision

METADATA_TTL = 72 * 3600.0

STALE_AFTER = 5.0
"""Seconds to wait for upstream while an older revision can be served: half of the timeout of hub clients."""

REQUESTS_AT_ONCE = 8
FAILURE_KEPT = 10.0
"""Seconds after a failed request before upstream is requested again."""

_KEEP_MANIFESTS = 64
_KEEP_FAILURES = 1024
_KEEP_NAMES = 1024


def _anything(_repo: RepoId, _asked: RepoId) -> None:
    """Every repository is kept."""


@dataclass(frozen=True, slots=True)
class _CachedRevision:
    """A revision in this cache. `own`: it came without upstream. `checked`: seconds since 1970."""

    manifest: Manifest
    checked: float
    own: bool = False


class RevisionSource(Protocol):
    """A source of manifests."""

    async def manifest(self, ref: Reference) -> Manifest:
        """The manifest of `ref` now. Raises as `Origin.manifest`."""


class UpstreamRevisions:
    """Manifests of references, from the cache's records or from `origin`.

    `admit(repo, asked)` raises for a repository that is not to be kept, which was requested as `asked`.
    """

    def __init__(
        self,
        cache: HubCache,
        origin: RevisionSource,
        reporter: Reporter,
        *,
        ttl: float = METADATA_TTL,
        admit: Callable[[RepoId, RepoId], None] = _anything,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache = cache
        self._origin = origin
        self._reporter = reporter
        self._ttl = ttl
        self._admit = admit
        self._names: LRUCache[RepoId, RepoId] = LRUCache(_KEEP_NAMES)
        """The names of repositories upstream, by other names that were requested."""
        self._clock = clock
        self._requests: SingleFlight[Reference, Manifest] = SingleFlight()
        self._slots = asyncio.Semaphore(REQUESTS_AT_ONCE)
        self._manifests: LRUCache[tuple[RepoId, str], Manifest] = LRUCache(_KEEP_MANIFESTS)
        self._lock = threading.Lock()
        self._failures: TTLCache[Reference, P2PModelError] = TTLCache(_KEEP_FAILURES, FAILURE_KEPT, timer=timer)

    async def close(self) -> None:
        """Cancel running requests."""
        await self._requests.close()

    async def manifest(self, ref: Reference) -> Manifest:
        """The manifest of `ref`. Raises as `Origin.manifest` if the cache has no record of it."""
        ref = Reference(self._names.get(ref.repo, ref.repo), ref.revision)
        known = self._known(ref.repo, ref.revision)
        if known is not None:
            return known
        cached = await asyncio.to_thread(self._cached, ref)
        if cached is None:
            return await self._request(ref)
        if ref.pinned or 0 <= self._clock() - cached.checked < self._ttl:
            return cached.manifest
        try:
            async with asyncio.timeout(STALE_AFTER):
                return await self._request(ref)
        except TimeoutError:
            return cached.manifest
        except P2PModelError as error:
            if not (isinstance(error, Unavailable | IntegrityError) or (cached.own and isinstance(error, NotFound))):
                raise
            return cached.manifest

    async def _request(self, ref: Reference) -> Manifest:
        error = self._failures.get(ref)
        if error is not None:
            raise error.with_traceback(None)
        return await self._requests.join(ref, lambda: self._look_up(ref))

    async def _look_up(self, ref: Reference) -> Manifest:
        try:
            async with self._slots:
                manifest = await self._origin.manifest(ref)
        except P2PModelError as error:
            self._failures[ref] = error
            if not isinstance(error, NotFound):
                self._reporter.note(
                    notes.warning("upstream_failed", f"upstream has no answer for {ref}: {error}", repo=str(ref.repo))
                )
            raise
        self._failures.pop(ref, None)
        self._admit(manifest.repo, ref.repo)
        if manifest.repo != ref.repo:
            self._names[ref.repo] = manifest.repo
        await asyncio.to_thread(record_revision, self._cache.repo(manifest.repo), manifest, ref.revision, self._clock())
        self._keep(manifest)
        return manifest

    def _cached(self, ref: Reference) -> _CachedRevision | None:
        # The cache keeps an object for every repository requested of it: names invented by clients must not get there.
        repo = self._cache.held(ref.repo)
        if repo is None:
            return None
        if ref.pinned:
            manifest = self._recorded(repo, ref.revision)
            return _CachedRevision(manifest, 0.0) if manifest else None
        record = known_revision(repo, ref.revision)
        commit = record.commit if record else repo.resolve(ref.revision)
        manifest = self._recorded(repo, commit) if commit else None
        if manifest is None:
            return None
        return _CachedRevision(manifest, record.checked if record else float("-inf"), own=record is None)

    def _recorded(self, repo: RepoCache, commit: str) -> Manifest | None:
        known = self._known(repo.repo, commit)
        if known is not None:
            return known
        manifest = repo.manifest(commit) if repo.listed_by_a_hub(commit) else None
        if manifest is not None:
            self._keep(manifest)
        return manifest

    def _keep(self, manifest: Manifest) -> None:
        with self._lock:
            self._manifests[manifest.repo, manifest.commit] = manifest

    def _known(self, repo: RepoId, commit: str) -> Manifest | None:
        with self._lock:
            return self._manifests.get((repo, commit))
