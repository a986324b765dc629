"""Removal of a snapshot from the cache: refs first, then its links, then the blobs that no other snapshot needs.

A reader never finds a part missing. A blob in the hub's shared store stays; only the link to it goes.
"""

import shutil
import stat
from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from p2pmodel.errors import NotFound
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.disk import names_in
from p2pmodel.store.files.folder import Folder
from p2pmodel.store.files.space import BLOCK
from p2pmodel.store.snapshot_links import links_of, remove_refs


@translated()
def remove_snapshot(repo: RepoCache, commit: str, needed: AbstractSet[str] = frozenset()) -> int:
    """Remove snapshot `commit` and its staged files; returns the removed bytes of blobs.

    Blobs with etags in `needed` stay: snapshots that are being downloaded need them and have no links yet.

    Raises NotFound if the cache has nothing of it. No fetch of it may be running.
    """
    staged = repo.private / "staging" / commit
    if not repo.has_snapshot(commit) and not staged.is_dir():
        raise NotFound(f"{repo.repo}@{commit} is not in this cache", hint="'p2pmodel ls' lists the snapshots")
    remove_refs(repo, commit)
    own_blobs = _blobs_of(repo, commit)
    with repo.listed("snapshots") as snapshots:
        if snapshots:
            snapshots.remove_tree(commit)
    _remove_records(repo, commit)
    if staged.is_dir():
        shutil.rmtree(staged)
    needed_by_others = {blob for other in repo.commits() for blob in _blobs_of(repo, other)}
    freed = _remove_blobs(repo, own_blobs - needed_by_others - needed)
    if not repo.commits() and not _in_use(repo):
        with Folder.open(repo.cache.root) as root:
            root.remove_tree(repo.folder.name)
    return freed


def _blobs_of(repo: RepoCache, commit: str) -> set[str]:
    """Etags that the snapshot links to."""
    return {etag for *_, etag in links_of(repo, commit) if etag is not None}


def _remove_records(repo: RepoCache, commit: str) -> None:
    with repo.listed("trees") as trees:
        if trees:
            trees.remove(f"{commit}.json")
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


def _in_use(repo: RepoCache) -> bool:
    """Whether there are blobs of a running client, or staged files."""
    return bool(repo.etags() or names_in(repo.private / "staging") or names_in(repo.private / "partial"))
