"""Taking a snapshot out of the cache: refs first, then its links, then the blobs that no other snapshot needs.

A reader never finds half of it gone. A blob in the hub's shared store stays; only the link to it goes.
"""

import os
import shutil
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path

from p2pmodel.errors import NotFound
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.space import allocated
from p2pmodel.store.manifests import linked_blob


@translated()
def remove_snapshot(repo: RepoCache, commit: str, needed: AbstractSet[str] = frozenset()) -> int:
    """Remove snapshot `commit` and what was staged for it; returns how many bytes of blobs went.

    Blobs whose etags are `needed`, by snapshots that are on their way and have no links yet, stay.

    Raises NotFound if nothing of it is here. Nobody may be fetching it.
    """
    staged = repo.private / "staging" / commit
    snapshot = repo.snapshot(commit)
    if not snapshot.is_dir() and not staged.is_dir():
        raise NotFound(f"{repo.repo}@{commit} is not in this cache", hint="'p2pmodel ls' lists what is")
    for name, target in repo.refs().items():
        if target == commit:
            (repo.folder / "refs" / name).unlink(missing_ok=True)
    ours = _blobs_of(repo, commit)
    if snapshot.is_dir():
        shutil.rmtree(snapshot)
    _remove_records(repo, commit)
    if staged.is_dir():
        shutil.rmtree(staged)
    kept = {blob for other in repo.commits() for blob in _blobs_of(repo, other)}
    freed = sum(_remove_blob(repo, etag) for etag in ours - kept - needed)
    if not repo.commits() and not _anything_left(repo):
        shutil.rmtree(repo.folder)
    return freed


def _blobs_of(repo: RepoCache, commit: str) -> set[str]:
    """Etags that the snapshot links to."""
    links = (linked_blob(path, repo.folder / "blobs") for path in _files(repo.snapshot(commit)))
    return {blob.name for blob in links if blob is not None}


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield Path(parent, name)


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


def _anything_left(repo: RepoCache) -> bool:
    """Whether anybody has something here yet: blobs of a client at work, or what is being staged."""
    for folder in (repo.folder / "blobs", repo.private / "staging", repo.private / "partial"):
        with suppress(FileNotFoundError):
            if any(folder.iterdir()):
                return True
    return False
