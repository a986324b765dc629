"""Removal of a snapshot from the cache: refs first, then its links, then the blobs that no other snapshot needs.

A reader never finds a part missing. A blob in the hub's shared store stays; only the link to it goes.
"""

import shutil
from collections.abc import Set as AbstractSet
from contextlib import suppress

from p2pmodel.errors import NotFound
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.disk import files_below
from p2pmodel.store.files.space import allocated
from p2pmodel.store.manifests import linked_blob


@translated()
def remove_snapshot(repo: RepoCache, commit: str, needed: AbstractSet[str] = frozenset()) -> int:
    """Remove snapshot `commit` and its staged files; returns the removed bytes of blobs.

    Blobs with etags in `needed` stay: snapshots that are being downloaded need them and have no links yet.

    Raises NotFound if the cache has nothing of it. No fetch of it may be running.
    """
    staged = repo.private / "staging" / commit
    snapshot = repo.snapshot(commit)
    if not snapshot.is_dir() and not staged.is_dir():
        raise NotFound(f"{repo.repo}@{commit} is not in this cache", hint="'p2pmodel ls' lists the snapshots")
    for name, target in repo.refs().items():
        if target == commit:
            (repo.folder / "refs" / name).unlink(missing_ok=True)
    own_blobs = _blobs_of(repo, commit)
    if snapshot.is_dir():
        shutil.rmtree(snapshot)
    _remove_records(repo, commit)
    if staged.is_dir():
        shutil.rmtree(staged)
    needed_by_others = {blob for other in repo.commits() for blob in _blobs_of(repo, other)}
    freed = sum(_remove_blob(repo, etag) for etag in own_blobs - needed_by_others - needed)
    if not repo.commits() and not _in_use(repo):
        shutil.rmtree(repo.folder)
    return freed


def _blobs_of(repo: RepoCache, commit: str) -> set[str]:
    """Etags that the snapshot links to."""
    links = (linked_blob(path, repo.folder / "blobs") for path in files_below(repo.snapshot(commit)))
    return {blob.name for blob in links if blob is not None}


def _remove_records(repo: RepoCache, commit: str) -> None:
    places = {repo.folder / "trees": "json", repo.private / "manifests": "json", repo.private / "torrents": "torrent"}
    for folder, kind in places.items():
        (folder / f"{commit}.{kind}").unlink(missing_ok=True)


def _remove_blob(repo: RepoCache, etag: str) -> int:
    path = repo.folder / "blobs" / etag
    size = 0 if path.is_symlink() else allocated(path)
    path.unlink(missing_ok=True)
    repo.served.remove(etag)
    return size


def _in_use(repo: RepoCache) -> bool:
    """Whether there are blobs of a running client, or staged files."""
    for folder in (repo.folder / "blobs", repo.private / "staging", repo.private / "partial"):
        with suppress(FileNotFoundError):
            if any(folder.iterdir()):
                return True
    return False
