"""What the snapshots of a cache take on its disk, when each was last used, and which of them are pinned.

Contents are not read. A pinned name protects the commit that it points at now. The last use is the time of the last
change of one empty file per commit.
"""

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from p2pmodel.core.content.names import RepoId, is_commit
from p2pmodel.errors import LocalResource
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import HubCache, OnUnreadable, RepoCache, passing_over
from p2pmodel.store.files.disk import names_in
from p2pmodel.store.files.space import BLOCK
from p2pmodel.store.snapshots.snapshot_files import links_of


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


_PINS = "pins"


@translated()
def pin(repo: RepoCache, revision: str) -> None:
    """Pin `revision`, a name or a whole commit."""
    folder = repo.made_private / _PINS
    folder.mkdir(exist_ok=True)
    (folder / _file_name(revision)).touch()


@translated()
def unpin(repo: RepoCache, revision: str) -> bool:
    """Remove the pin; whether there was one."""
    found = False
    for place in repo.private_places:
        with suppress(FileNotFoundError):
            (place / _PINS / _file_name(revision)).unlink()
            found = True
    return found


@translated()
def pins(repo: RepoCache) -> tuple[str, ...]:
    """The pinned revisions, sorted."""
    names = {name for place in repo.private_places for name in names_in(place / _PINS)}
    return tuple(sorted(unquote(name) for name in names))


@translated()
def pinned_commits(repo: RepoCache) -> frozenset[str]:
    """The commits that the pins protect now."""
    refs = repo.refs()
    found = (name if is_commit(name) else refs.get(name) for name in pins(repo))
    return frozenset(commit for commit in found if commit is not None)


def _file_name(revision: str) -> str:
    return quote(revision, safe="").replace(".", "%2E")


_USES = "used"


@translated()
def mark_used(repo: RepoCache, commit: str) -> None:
    """Record that the snapshot is used now."""
    folder = repo.made_private / _USES
    folder.mkdir(exist_ok=True)
    (folder / commit).touch()


def note_use(repo: RepoCache, commit: str) -> None:
    """As `mark_used` where the snapshot is in the cache and the record can be written; otherwise nothing. Blocks."""
    with suppress(OSError, LocalResource):
        if repo.has_snapshot(commit):
            mark_used(repo, commit)


def last_use(repo: RepoCache, commit: str, *, clock: Callable[[], float] = time.time) -> float:
    """When the snapshot was last used, in seconds since 1970; without a record, when it came into the cache.

    A time in the future, from before the clock was set back, counts as now.
    """
    found = [_changed(place / _USES / commit) for place in repo.private_places]
    found.append(_changed(repo.snapshot(commit)))
    return min(max(found), clock())


@translated()
def forget_use(repo: RepoCache, commit: str) -> None:
    """Remove the record."""
    for place in repo.private_places:
        with suppress(FileNotFoundError):
            (place / _USES / commit).unlink()


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
