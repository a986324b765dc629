"""What a hub cache publishes: looking up snapshots and opening their blobs. Blocking; called in threads."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cachetools import TTLCache

from p2pmodel.core.manifest import Manifest, ManifestFile
from p2pmodel.core.names import DEFAULT_REVISION, RepoId, check_revision, is_commit, printable
from p2pmodel.errors import InvalidInput, RepoNotFound, RevisionNotFound, Unavailable
from p2pmodel.store.cache import HubCache, RepoCache

_KEEP_SECONDS = 5.0
_KEEP_SNAPSHOTS = 64

_Key = tuple[RepoId, str]


@dataclass(frozen=True, slots=True)
class PublishedSnapshot:
    """One commit held here. `files` maps its paths.

    `complete_list` is whether a hub said which files there are; without it only those present are known, and a file
    that is not listed may well exist.
    """

    cache: RepoCache
    manifest: Manifest
    files: Mapping[str, ManifestFile]
    complete_list: bool

    def open(self, file: ManifestFile) -> BinaryIO:
        """Open the blob of `file`, whole and of the right size; the descriptor outlives any pruning.

        Raises Unavailable if it is not here (yet, or any more).
        """
        path = self.cache.blob(file)
        opened = _open_whole(path, file.size) if path is not None else None
        if opened is None:
            raise Unavailable(f"{printable(file.path)} of {self.manifest.repo} is not in this mirror's cache now")
        return opened


class PublishedCache:
    """The snapshots of `cache`, with the manifests read last kept for a few seconds."""

    def __init__(self, cache: HubCache, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._cache = cache
        self._kept: TTLCache[tuple[RepoId, str], PublishedSnapshot] = TTLCache(
            _KEEP_SNAPSHOTS, _KEEP_SECONDS, timer=clock
        )
        self._lock = threading.Lock()

    def kept(self, repo: str, revision: str) -> PublishedSnapshot | None:
        """`snapshot`, if that is known without touching the disk."""
        return self._recent(_repo_id(repo), revision) if is_commit(revision) else None

    def snapshot(self, repo: str, revision: str = DEFAULT_REVISION) -> PublishedSnapshot:
        """The snapshot of `repo` at a branch, tag, pull request or commit. RepoNotFound, RevisionNotFound."""
        repo_id, kept = _repo_id(repo), self.kept(repo, revision)
        if kept is not None:
            return kept
        held = self._held(repo_id)
        commit = _resolve(held, revision)
        kept = self._recent(repo_id, commit) if commit else None
        if kept is not None:
            return kept
        manifest = held.manifest(commit) if commit else None
        if manifest is None:
            raise RevisionNotFound(f"{repo_id} has no revision '{printable(revision)}' in this mirror's cache")
        files = {file.path: file for file in manifest.files}
        found = PublishedSnapshot(held, manifest, files, complete_list=held.listed_by_a_hub(manifest.commit))
        self._keep(found)
        return found

    def refs(self, repo: str) -> dict[str, str]:
        """Ref names of `repo` and the commits they point to. Raises RepoNotFound."""
        return self._held(_repo_id(repo)).refs()

    def _held(self, repo: RepoId) -> RepoCache:
        # The cache remembers every repository it is asked for: names that strangers invent must not get there.
        held = self._cache.repo(repo) if (self._cache.root / repo.cache_folder).is_dir() else None
        if held is None or not held.commits():
            raise RepoNotFound(f"{repo} is not in this mirror's cache")
        return held

    def _recent(self, repo: RepoId, commit: str) -> PublishedSnapshot | None:
        with self._lock:
            return self._kept.get((repo, commit))

    def _keep(self, snapshot: PublishedSnapshot) -> None:
        with self._lock:
            self._kept[snapshot.manifest.repo, snapshot.manifest.commit] = snapshot


def _repo_id(repo: str) -> RepoId:
    try:
        return RepoId(repo)
    except InvalidInput as error:
        raise RepoNotFound(error.what) from None


def _resolve(held: RepoCache, revision: str) -> str | None:
    try:
        return held.resolve(check_revision(revision))
    except InvalidInput:
        return None


def _open_whole(path: Path, size: int) -> BinaryIO | None:
    try:
        file = path.open("rb", buffering=0)
    except OSError:
        return None
    try:
        status = os.fstat(file.fileno())
    except OSError:
        status = None
    if status is None or status.st_size != size:
        file.close()
        return None
    return file
