"""Removal of a snapshot from the cache: refs first, then its links, then the blobs that no other snapshot needs.

A reader never finds a part missing. A blob in the hub's shared store stays; only the link to it goes.
"""

import stat
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.errors import NotFound
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.folder import Folder
from p2pmodel.store.files.space import BLOCK
from p2pmodel.store.snapshots.snapshot_files import links_of, remove_refs
from p2pmodel.store.space.usage import forget_use
from p2pmodel.store.staging import unfinished_commits


@translated()
def remove_snapshot(repo: RepoCache, commit: str, needed: AbstractSet[str] = frozenset()) -> int:
    """Remove snapshot `commit`, complete or not, and its staged files; returns the removed bytes.

    Contents with etags in `needed` stay: snapshots that are being downloaded need them and have no links yet. So do
    those of other downloads that have begun, and staged files that another process is writing.

    Raises NotFound if the cache has nothing of it. No fetch of it may be running.
    """
    listed = _listed(repo, commit)
    if not repo.has_snapshot(commit) and not _is_unfinished(repo, commit, listed):
        raise NotFound(f"{repo.repo}@{commit} is not in this cache", hint="'p2pmodel ls' lists the snapshots")
    remove_refs(repo, commit)
    linked = _blobs_of(repo, commit)
    plain = _plain_bytes(repo, commit)
    with repo.listed("snapshots") as snapshots:
        if snapshots:
            snapshots.remove_tree(commit)
    repo.places.plain.forget()
    repo.staging(commit).forget()
    kept = {blob for other in repo.commits() for blob in _blobs_of(repo, other)} | needed
    for other in unfinished_commits(repo.private):
        kept |= _listed(repo, other).keys()
    present = repo.etags() - linked - kept
    unlinked = [file for etag, file in listed.items() if etag in present]
    freed = plain + _remove_blobs(repo, linked - kept) + _remove_blobs(repo, _abandoned(repo, unlinked))
    freed += repo.staged.remove(listed.keys() - kept)
    _remove_records(repo, commit)
    if not repo.commits() and not _in_use(repo):
        _remove_folder(repo)
    return freed


def _listed(repo: RepoCache, commit: str) -> dict[str, ManifestFile]:
    """All files of a snapshot by etag, also those that it does not link to yet."""
    manifest = repo.manifest(commit)
    return {file.etag: file for file in manifest.files} if manifest else {}


def _is_unfinished(repo: RepoCache, commit: str, listed: Mapping[str, ManifestFile]) -> bool:
    return repo.staging(commit).refs() is not None or bool(listed.keys() & repo.staged.held().keys())


def _abandoned(repo: RepoCache, files: Iterable[ManifestFile]) -> Iterator[str]:
    """Etags of those `files` of which no client holds the lock: a client that has just downloaded a blob links it
    next."""
    for file in files:
        if repo.cache.locks.try_acquire(repo.repo, file):
            try:
                yield file.etag
            finally:
                repo.cache.locks.release(repo.repo, file)


def _blobs_of(repo: RepoCache, commit: str) -> set[str]:
    """Etags that the snapshot links to."""
    return {etag for *_, etag in links_of(repo, commit) if etag is not None}


def _plain_bytes(repo: RepoCache, commit: str) -> int:
    """Bytes that the plain files of the snapshot occupy, without those that have another name."""
    found = (folder.status(name) for folder, _, name in repo.snapshot_entries(commit))
    return sum(s.st_blocks * BLOCK for s in found if s and stat.S_ISREG(s.st_mode) and s.st_nlink == 1)


def _remove_records(repo: RepoCache, commit: str) -> None:
    with repo.listed("trees") as trees:
        if trees:
            trees.remove(f"{commit}.json")
    forget_use(repo, commit)
    for folder, kind in {"manifests": "json", "torrents": "torrent"}.items():
        (repo.private / folder / f"{commit}.{kind}").unlink(missing_ok=True)


def _remove_blobs(repo: RepoCache, etags: Iterable[str]) -> int:
    """Remove these blobs; returns the bytes that they occupied."""
    freed = 0
    with repo.listed("blobs") as blobs:
        if blobs is None:
            return 0
        for etag in etags:
            status = blobs.status(etag)
            freed += status.st_blocks * BLOCK if status and stat.S_ISREG(status.st_mode) else 0
            blobs.remove(etag)
            repo.served.remove(etag)
    return freed


def _remove_folder(repo: RepoCache) -> None:
    """Remove the folder of the repository, also one that `cache move` has put on another disk."""
    moved = repo.folder.resolve() if repo.folder.is_symlink() else None
    with Folder.open(repo.cache.root) as root:
        root.remove_tree(repo.folder.name)
    if moved is not None and moved.name == repo.folder.name:
        with Folder.open(moved.parent) as above:
            above.remove_tree(moved.name)


def _in_use(repo: RepoCache) -> bool:
    """Whether there are blobs of a running client, or staged files."""
    return bool(repo.etags() or repo.staged.held() or unfinished_commits(repo.private))
