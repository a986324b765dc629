"""Eviction of the files that a mirror served longest ago, to keep its cache within a size.

Only files that a pull-through mirror downloaded are evicted, and unfinished files that no process downloads: they can
be downloaded again. Imported and fetched files stay, and count. Refs go first, then the links of the snapshots, then
the blob: a reader never finds a part missing.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from p2pmodel.core.content.names import RepoId
from p2pmodel.core.sizes import human
from p2pmodel.errors import InvalidInput, NoSpace, Unavailable
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import BlobKey, HubCache, RepoCache
from p2pmodel.store.files.disk import names_in
from p2pmodel.store.snapshots.snapshot_files import links_of, remove_refs


@dataclass(frozen=True, slots=True)
class _Item:
    """Content on disk; `served` is None unless a pull-through mirror downloaded it, or it is unfinished."""

    repo: RepoCache
    etag: str
    size: int
    served: float | None
    unfinished: bool = False

    @property
    def key(self) -> BlobKey:
        return self.repo.repo, self.etag


@translated()
def make_room(
    cache: HubCache, budget: int, growing: Mapping[BlobKey, int], in_use: Callable[[BlobKey], bool]
) -> list[tuple[RepoId, str, int]]:
    """Evict the files served longest ago until the cache, with all of `growing` (size by key) in it, has at most
    `budget` bytes. Returns what was evicted: repository, etag, size.

    Files `in_use` stay. Raises NoSpace if no eviction could meet the budget, and Unavailable if only files in use
    prevent it; then nothing is evicted.
    """
    items = [item for item in _items(cache) if item.key not in growing]
    total = sum(item.size for item in items) + sum(growing.values())
    removable = [item for item in items if item.served is not None]
    fixed = total - sum(item.size for item in removable)
    if sum(growing.values()) > budget:
        size = human(sum(growing.values()))
        raise NoSpace(
            f"the requested files have {size}, more than the cache's limit of {human(budget)}",
            hint="raise --max-cache-bytes",
        )
    if fixed > budget:
        raise NoSpace(
            f"{human(fixed)} must stay in the cache, more than its limit of {human(budget)}",
            hint="raise --max-cache-bytes, or remove snapshots that this mirror did not download",
        )
    idle = [item for item in removable if not in_use(item.key)]
    if total - sum(item.size for item in idle) > budget:
        raise Unavailable(f"the cache is full of files being served ({human(budget)})", hint="try again later")
    evicted = []
    for item in sorted(idle, key=lambda item: item.served or 0.0):
        if total <= budget:
            break
        if not in_use(item.key) and (freed := _remove(item)):
            evicted.append((item.repo.repo, item.etag, freed))
            total -= freed
    return evicted


def _items(cache: HubCache) -> Iterator[_Item]:
    for name in sorted(names_in(cache.root)):
        try:
            repo = cache.repo(RepoId.from_cache_folder(name))
        except InvalidInput:
            continue
        yield from _blobs(repo)
        yield from _plain_files(repo)
        for etag, staged in repo.staged.held().items():
            yield _Item(repo, etag, staged.size, staged.written, unfinished=True)


def _blobs(repo: RepoCache) -> Iterator[_Item]:
    with repo.listed("blobs") as folder:
        if folder is None:
            return
        with os.scandir(folder.descriptor) as entries:
            for entry in entries:
                # A link leads into the hub's shared store, which other programs own.
                if entry.is_file(follow_symlinks=False):
                    size = entry.stat(follow_symlinks=False).st_size
                    yield _Item(repo, entry.name, size, repo.served.time(entry.name))


def _plain_files(repo: RepoCache) -> Iterator[_Item]:
    """Contents that are in snapshots alone: each path has a file of its own."""
    names = frozenset(names_in(repo.folder / "blobs"))
    for etag in repo.places.plain.etags() - names:
        for _, size in repo.places.plain.sizes(etag):
            yield _Item(repo, etag, size, repo.served.time(etag))


def _remove(item: _Item) -> int:
    """The bytes that this freed; 0 for an unfinished file that another process downloads."""
    if item.unfinished:
        return item.repo.staged.remove([item.etag])
    _remove_links(item.repo, item.etag)
    with item.repo.opened("blobs") as blobs:
        blobs.remove(item.etag)
    item.repo.served.remove(item.etag)
    return item.size


def _remove_links(repo: RepoCache, etag: str) -> None:
    for commit in repo.commits():
        etags = [found for *_, found in links_of(repo, commit)]
        if etag in etags:
            if all(found == etag for found in etags):
                remove_refs(repo, commit)
            _remove_links_of(repo, commit, etag)
        if not repo.has_snapshot(commit):
            with repo.listed("trees") as trees:
                if trees:
                    trees.remove(f"{commit}.json")


def _remove_links_of(repo: RepoCache, commit: str, etag: str) -> None:
    """Remove the links to the blob from one snapshot, and its folders that are empty then."""
    emptied = set()
    for folder, way, name, found in links_of(repo, commit):
        if found == etag:
            folder.remove(name)
            emptied.add(way)
    with repo.opened("snapshots") as snapshots:
        for way in sorted(emptied, key=len, reverse=True):
            snapshots.remove_empty(commit, *way)
