"""Keeping a mirror's cache within a size: what was served longest ago goes first, and comes back when asked for.

Only what a mirror pulled is ever removed: it can be had again. What was imported or fetched here stays, and counts.
A reader never finds half of it gone: refs first, then the links of the snapshots, then the blob.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from p2pmodel.core.names import RepoId
from p2pmodel.core.sizes import human
from p2pmodel.errors import InvalidInput, NoSpace, Unavailable
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import BlobKey, HubCache, RepoCache
from p2pmodel.store.files.partial_file import remove_record
from p2pmodel.store.files.space import allocated
from p2pmodel.store.manifests import linked_blob


@dataclass(frozen=True, slots=True)
class _Item:
    """Content on the disk; `served` is None for what no mirror pulled."""

    repo: RepoCache
    etag: str
    path: Path
    size: int
    served: float | None

    @property
    def key(self) -> BlobKey:
        return self.repo.repo, self.etag


@translated()
def make_room(
    cache: HubCache, budget: int, growing: Mapping[BlobKey, int], in_use: Callable[[BlobKey], bool]
) -> list[tuple[RepoId, str, int]]:
    """Remove what was served longest ago until the cache, with all of `growing` (size by key) in it, has at most
    `budget` bytes. Returns what went: repository, etag, size.

    What is `in_use` stays. Raises NoSpace if the budget is too small even without anything that could go, Unavailable
    if only what is in use is in the way; nothing is removed then.
    """
    items = [item for item in _items(cache) if item.key not in growing]
    total = sum(item.size for item in items) + sum(growing.values())
    removable = [item for item in items if item.served is not None]
    fixed = total - sum(item.size for item in removable)
    if fixed > budget:
        raise NoSpace(
            f"{human(fixed)} must stay in the cache, more than its bound of {human(budget)}",
            hint="raise --max-cache-bytes, or remove snapshots that were not pulled by this mirror",
        )
    idle = [item for item in removable if not in_use(item.key)]
    if total - sum(item.size for item in idle) > budget:
        raise Unavailable(f"the cache is full of what is being served ({human(budget)})", hint="ask again later")
    gone = []
    for item in sorted(idle, key=lambda item: item.served or 0.0):
        if total <= budget:
            break
        if not in_use(item.key):
            _remove(item)
            gone.append((item.repo.repo, item.etag, item.size))
            total -= item.size
    return gone


def _items(cache: HubCache) -> Iterator[_Item]:
    for folder in sorted(cache.root.glob("models--*")):
        try:
            repo = cache.repo(RepoId.from_cache_folder(folder.name))
        except InvalidInput:
            continue
        yield from _blobs(repo)
        for part in (repo.private / "partial").glob("*.part"):
            with suppress(FileNotFoundError):
                yield _Item(repo, part.stem, part, allocated(part), part.stat().st_mtime)
        for staged in (repo.private / "staging").glob("*/*.part"):
            yield _Item(repo, staged.name, staged, allocated(staged), None)


def _blobs(repo: RepoCache) -> Iterator[_Item]:
    folder = repo.folder / "blobs"
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            # A link leads into the hub's shared store, which is not ours.
            if entry.is_file(follow_symlinks=False):
                size = entry.stat(follow_symlinks=False).st_size
                yield _Item(repo, entry.name, Path(entry.path), size, repo.served.time(entry.name))


def _remove(item: _Item) -> None:
    if item.path.suffix == ".part":
        remove_record(item.path)
    else:
        _remove_links(item.repo, item.etag)
    item.path.unlink(missing_ok=True)
    item.repo.served.remove(item.etag)


def _remove_links(repo: RepoCache, etag: str) -> None:
    for commit in repo.commits():
        snapshot = repo.snapshot(commit)
        links = {entry: linked_blob(entry, repo.folder / "blobs") for entry in _files(snapshot)}
        ours = [entry for entry, blob in links.items() if blob is not None and blob.name == etag]
        if ours and len(ours) == len(links):
            _remove_refs(repo, commit)
        for entry in ours:
            entry.unlink(missing_ok=True)
            _remove_empty(entry.parent, repo.folder / "snapshots")
        if not snapshot.is_dir():
            (repo.folder / "trees" / f"{commit}.json").unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield Path(parent, name)


def _remove_refs(repo: RepoCache, commit: str) -> None:
    for name, target in repo.refs().items():
        if target == commit:
            (repo.folder / "refs" / name).unlink(missing_ok=True)


def _remove_empty(folder: Path, stop: Path) -> None:
    """Remove `folder` and those above it that are empty, below `stop`."""
    while folder != stop:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
