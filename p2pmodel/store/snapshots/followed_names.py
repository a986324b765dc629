"""The names in a cache that may move to a newer commit: branches, tags and aliases, with what the cache has of them."""

from collections.abc import Iterator
from dataclasses import dataclass

from p2pmodel.core.content.manifest import exact_pattern
from p2pmodel.core.content.names import RepoId, is_commit
from p2pmodel.store.cache import HubCache, OnUnreadable
from p2pmodel.store.snapshots.snapshot_list import CachedSnapshot, snapshots


@dataclass(frozen=True, slots=True)
class FollowedName:
    """The name `name` of `repo` points at `commit`. `include`: patterns of the files that are here, where others are
    not; none for a whole snapshot. `files` is their number."""

    repo: RepoId
    name: str
    commit: str
    files: int
    include: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.repo}@{self.name}"


def followed(cache: HubCache, on_unreadable: OnUnreadable | None = None) -> Iterator[FollowedName]:
    """Every name of a snapshot with a known list of files, by repository. Blocks."""
    for snapshot in snapshots(cache, on_unreadable):
        include = _include(cache, snapshot)
        count = len(include) or len(snapshot.manifest.files)
        for name in snapshot.refs:
            if not is_commit(name):
                yield FollowedName(snapshot.repo, name, snapshot.commit, count, include)


def _include(cache: HubCache, snapshot: CachedSnapshot) -> tuple[str, ...]:
    """Hub clients bring single files, and then the list may have those alone."""
    if not snapshot.missing and cache.repo(snapshot.repo).listed_by_a_hub(snapshot.commit):
        return ()
    missing = {file.path for file in snapshot.missing}
    return tuple(exact_pattern(file.path) for file in snapshot.manifest.files if file.path not in missing)
