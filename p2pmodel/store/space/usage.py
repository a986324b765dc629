"""What the snapshots of a cache take on its disk, and what all of it takes. Contents are not read."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from p2pmodel.core.content.names import RepoId
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import HubCache, OnUnreadable, RepoCache, passing_over
from p2pmodel.store.files.space import BLOCK
from p2pmodel.store.snapshots.snapshot_links import links_of
from p2pmodel.store.space.pins import pinned_commits, pins
from p2pmodel.store.space.uses import last_use


@dataclass(frozen=True, slots=True)
class SnapshotUsage:
    """A snapshot with a folder in the cache. `contents`: bytes on disk by content; `inodes`: of its files, also of
    those in the hub's shared store, which count for no repository. `moved_to`: where a link leads that has the place of
    the repository, "" without one: its bytes are not in `total`."""

    repo: RepoId
    commit: str
    refs: tuple[str, ...]
    pins: tuple[str, ...]
    pinned: bool
    used: float
    contents: dict[str, int]
    inodes: frozenset[int]
    moved_to: str = ""


@dataclass(frozen=True, slots=True)
class CacheUsage:
    """All snapshots, and `total`: the bytes on disk of everything below the cache's folder, as `du` counts them."""

    snapshots: tuple[SnapshotUsage, ...]
    total: int


@translated()
def measured(cache: HubCache, on_unreadable: OnUnreadable | None = None) -> CacheUsage:
    """The usage of `cache` now. Blocks."""
    found: list[SnapshotUsage] = []
    for name in cache.repos(on_unreadable):
        with passing_over(name, on_unreadable):
            found += list(usage_of(cache.repo(name)))
    return CacheUsage(tuple(found), disk_bytes(cache.root))


def usage_of(repo: RepoCache) -> Iterator[SnapshotUsage]:
    """The usage of each snapshot of one repository. Blocks."""
    refs, own, protected = repo.refs(), pins(repo), pinned_commits(repo)
    moved_to = str(repo.folder.resolve()) if repo.folder.is_symlink() else ""
    for commit in repo.commits():
        names = tuple(sorted(name for name, target in refs.items() if target == commit))
        contents, inodes = _contents(repo, commit)
        yield SnapshotUsage(
            repo=repo.repo,
            commit=commit,
            refs=names,
            pins=tuple(each for each in own if each == commit or each in names),
            pinned=commit in protected,
            used=last_use(repo, commit),
            contents=contents,
            inodes=inodes,
            moved_to=moved_to,
        )


def disk_bytes(root: Path) -> int:
    """Bytes that everything below `root` takes on its disk; a file with several names counts once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for path in _walk(root):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            total += status.st_blocks * BLOCK
    return total


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        yield Path(folder)
        yield from (Path(folder, name) for name in files)
        yield from (path for name in folders if (path := Path(folder, name)).is_symlink())


def _contents(repo: RepoCache, commit: str) -> tuple[dict[str, int], frozenset[int]]:
    contents: dict[str, int] = {}
    inodes: set[int] = set()
    with repo.listed("blobs") as blobs:
        for folder, way, name, etag in links_of(repo, commit):
            status = folder.status(name)
            key = "/".join((commit, *way, name))
            if status is not None and stat.S_ISLNK(status.st_mode):
                status = blobs.status(etag) if blobs and etag else None
                key = etag or key
            elif etag and blobs and (blob := blobs.status(etag)) and status and blob.st_ino == status.st_ino:
                key = etag  # the blob's second name
            if status is None:
                continue
            inodes |= _inodes(repo, key, status)
            if stat.S_ISREG(status.st_mode):
                contents[key] = status.st_blocks * BLOCK
    return contents, frozenset(inodes)


def _inodes(repo: RepoCache, key: str, status: os.stat_result) -> set[int]:
    if not stat.S_ISLNK(status.st_mode):
        return {status.st_ino}
    try:
        return {(repo.folder / "blobs" / key).stat().st_ino}
    except OSError:
        return set()
