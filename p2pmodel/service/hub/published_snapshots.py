"""The snapshots that a hub cache publishes, and their blobs. Blocks: called in threads."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from cachetools import TTLCache

from p2pmodel.core.content.layout import MIB
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import DEFAULT_REVISION, RepoId, check_revision, is_commit, printable
from p2pmodel.errors import InvalidInput, RepoNotFound, RevisionNotFound, Unavailable
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.state.verified_blobs import BlobState, fingerprint_of
from p2pmodel.store.verify import rehash

CHECKED_AT_ONCE = 64 * MIB
"""Bytes up to which a plain file is hashed when it is requested; larger ones are hashed in the background."""

_KEEP_SECONDS = 5.0
_KEEP_SNAPSHOTS = 64

_Key = tuple[RepoId, str]


@dataclass(frozen=True, slots=True)
class PublishedSnapshot:
    """One commit in the cache. `files` maps its paths.

    `complete_list`: the file list comes from a hub. Otherwise only files in the cache are listed, and others may exist.
    """

    cache: RepoCache
    manifest: Manifest
    files: Mapping[str, ManifestFile]
    complete_list: bool

    def open(self, file: ManifestFile) -> BinaryIO:
        """Open the blob of `file`; the descriptor stays valid after an eviction.

        Raises Unavailable if it is not in the cache (yet, or any more), is damaged, or has changed since it was
        verified.
        """
        opened = _opened(self.cache, file)
        if opened is None:
            raise self._unavailable(file, "is not in the cache of this mirror now")
        status = os.fstat(opened.fileno())
        state = self.cache.state_of(file, fingerprint_of(status))
        if state is BlobState.UNKNOWN and file.size <= CHECKED_AT_ONCE and self._is_plain(file):
            state = BlobState.VERIFIED if rehash(self.cache, file) else BlobState.DAMAGED
        doubtful = state is BlobState.UNKNOWN and self._is_plain(file)
        if status.st_size == file.size and state.usable and not doubtful:
            return opened
        opened.close()
        if state is BlobState.DAMAGED:
            raise self._unavailable(file, "is damaged in the cache of this mirror")
        if doubtful:
            raise self._unavailable(
                file, "has no hash in its name, and is not verified yet ('p2pmodel verify' does it)"
            )
        raise self._unavailable(file, "has changed in the cache of this mirror since it was verified")

    def _is_plain(self, file: ManifestFile) -> bool:
        """Whether it is a file of a snapshot, of which only its content tells whether it is right."""
        place = self.cache.places.find(file)
        return place is not None and place.plain is not None

    def _unavailable(self, file: ManifestFile, reason: str) -> Unavailable:
        return Unavailable(f"{printable(file.path)} of {self.manifest.repo} {reason}")


class PublishedCache:
    """The snapshots of `cache`; recently read manifests are kept in memory for some seconds."""

    def __init__(self, cache: HubCache, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._cache = cache
        self._snapshots: TTLCache[tuple[RepoId, str], PublishedSnapshot] = TTLCache(
            _KEEP_SNAPSHOTS, _KEEP_SECONDS, timer=clock
        )
        self._lock = threading.Lock()

    def recent(self, repo: str, revision: str) -> PublishedSnapshot | None:
        """`snapshot`, if it is in memory."""
        return self._recent(_repo_id(repo), revision) if is_commit(revision) else None

    def snapshot(self, repo: str, revision: str = DEFAULT_REVISION) -> PublishedSnapshot:
        """The snapshot of `repo` at a branch, tag, pull request or commit. RepoNotFound, RevisionNotFound."""
        repo_id, recent = _repo_id(repo), self.recent(repo, revision)
        if recent is not None:
            return recent
        cache = self._repo(repo_id)
        commit = _resolve(cache, revision)
        recent = self._recent(cache.repo, commit) if commit else None
        if recent is not None:
            return recent
        manifest = cache.manifest(commit) if commit else None
        if manifest is None:
            raise RevisionNotFound(f"{repo_id} has no revision '{printable(revision)}' in this mirror's cache")
        files = {file.path: file for file in manifest.files}
        found = PublishedSnapshot(cache, manifest, files, complete_list=cache.listed_by_a_hub(manifest.commit))
        self._keep(found)
        return found

    def refs(self, repo: str) -> dict[str, str]:
        """Ref names of `repo` and the commits they point to. Raises RepoNotFound."""
        return self._repo(_repo_id(repo)).refs()

    def held(self, repo: RepoId) -> RepoId:
        """`repo` in the spelling in which the cache has it; as it is if the cache has none."""
        return self._cache.known(repo).repo

    def _repo(self, repo: RepoId) -> RepoCache:
        # The cache keeps an object for every repository requested of it: names invented by clients must not get there.
        cache = self._cache.held(repo)
        if cache is None or not cache.commits():
            raise RepoNotFound(f"{repo} is not in this mirror's cache")
        return cache

    def _recent(self, repo: RepoId, commit: str) -> PublishedSnapshot | None:
        with self._lock:
            return self._snapshots.get((repo, commit))

    def repo(self, repo: RepoId) -> RepoCache:
        """The part of the cache for `repo`."""
        return self._cache.repo(repo)

    def _keep(self, snapshot: PublishedSnapshot) -> None:
        with self._lock:
            self._snapshots[snapshot.manifest.repo, snapshot.manifest.commit] = snapshot


def _repo_id(repo: str) -> RepoId:
    try:
        return RepoId(repo)
    except InvalidInput as error:
        raise RepoNotFound(error.what) from None


def _resolve(cache: RepoCache, revision: str) -> str | None:
    try:
        return cache.resolve(check_revision(revision))
    except InvalidInput:
        return None


def _opened(cache: RepoCache, file: ManifestFile) -> BinaryIO | None:
    try:
        return cache.open_blob(file)
    except OSError:
        return None
