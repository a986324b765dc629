"""What upstream says revisions are: remembered on disk, asked again when old, kept while upstream cannot be asked.

- A commit never changes: known once, it is never asked for again.
- A branch is asked for again `ttl` seconds after it last was. Meanwhile, and whenever upstream does not answer, what
  is known is served (stale-if-error). "There is no such thing" and "you may not" are answers and are passed on.
- What came to this cache without upstream (an import) stays here whatever upstream says.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cachetools import LRUCache, TTLCache

from p2pmodel.core.manifest import Manifest
from p2pmodel.core.names import Reference, RepoId
from p2pmodel.core.single_flight import SingleFlight
from p2pmodel.errors import IntegrityError, NotFound, P2PModelError, Unavailable
from p2pmodel.node.reporter import Reporter
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.state.revisions import known_revision, remember

METADATA_TTL = 72 * 3600.0

PATIENT_FOR = 5.0
"""Seconds a client waits for upstream when there is something older to serve: half of what hub clients wait."""

ASK_AT_ONCE = 8
FAILURE_KEPT = 10.0
"""Seconds for which upstream is not asked again for what it just failed to tell."""

_KEEP_MANIFESTS = 64
_KEEP_FAILURES = 1024


@dataclass(frozen=True, slots=True)
class _CachedRevision:
    """What this cache knows of a revision. `own`: without upstream. `checked`: seconds since 1970."""

    manifest: Manifest
    checked: float
    own: bool = False


class RevisionSource(Protocol):
    """Somebody who knows what a reference consists of."""

    async def manifest(self, ref: Reference) -> Manifest:
        """What `ref` consists of now. Raises as `Origin.manifest` does."""


class UpstreamRevisions:
    """Answers what a reference consists of, from the cache's memory or from `origin`."""

    def __init__(
        self,
        cache: HubCache,
        origin: RevisionSource,
        reporter: Reporter,
        *,
        ttl: float = METADATA_TTL,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cache = cache
        self._origin = origin
        self._reporter = reporter
        self._ttl = ttl
        self._clock = clock
        self._asking: SingleFlight[Reference, Manifest] = SingleFlight()
        self._slots = asyncio.Semaphore(ASK_AT_ONCE)
        self._manifests: LRUCache[tuple[RepoId, str], Manifest] = LRUCache(_KEEP_MANIFESTS)
        self._lock = threading.Lock()
        self._failures: TTLCache[Reference, P2PModelError] = TTLCache(_KEEP_FAILURES, FAILURE_KEPT, timer=clock)

    async def close(self) -> None:
        """Stop asking."""
        await self._asking.close()

    async def manifest(self, ref: Reference) -> Manifest:
        """What `ref` consists of. Raises as `Origin.manifest` does if nothing is known of it here."""
        kept = self._known(ref.repo, ref.revision)
        if kept is not None:
            return kept
        held = await asyncio.to_thread(self._held, ref)
        if held is None:
            return await self._ask(ref)
        if ref.pinned or 0 <= self._clock() - held.checked < self._ttl:
            return held.manifest
        try:
            async with asyncio.timeout(PATIENT_FOR):
                return await self._ask(ref)
        except TimeoutError:
            return held.manifest
        except P2PModelError as error:
            if not (isinstance(error, Unavailable | IntegrityError) or (held.own and isinstance(error, NotFound))):
                raise
            return held.manifest

    async def _ask(self, ref: Reference) -> Manifest:
        error = self._failures.get(ref)
        if error is not None:
            raise error.with_traceback(None)
        return await self._asking.join(ref, lambda: self._look_up(ref))

    async def _look_up(self, ref: Reference) -> Manifest:
        try:
            async with self._slots:
                manifest = await self._origin.manifest(ref)
        except P2PModelError as error:
            self._failures[ref] = error
            if not isinstance(error, NotFound):
                self._reporter.note(f"upstream does not tell what {ref} is: {error}")
            raise
        self._failures.pop(ref, None)
        await asyncio.to_thread(remember, self._cache.repo(ref.repo), manifest, ref.revision, self._clock())
        self._keep(manifest)
        return manifest

    def _held(self, ref: Reference) -> _CachedRevision | None:
        # The cache remembers every repository it is asked for: names that strangers invent must not get there.
        if not (self._cache.root / ref.repo.cache_folder).is_dir():
            return None
        repo = self._cache.repo(ref.repo)
        if ref.pinned:
            manifest = self._recorded(repo, ref.revision)
            return _CachedRevision(manifest, 0.0) if manifest else None
        known = known_revision(repo, ref.revision)
        commit = known.commit if known else repo.resolve(ref.revision)
        manifest = self._recorded(repo, commit) if commit else None
        if manifest is None:
            return None
        return _CachedRevision(manifest, known.checked if known else float("-inf"), own=known is None)

    def _recorded(self, repo: RepoCache, commit: str) -> Manifest | None:
        kept = self._known(repo.repo, commit)
        if kept is not None:
            return kept
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
