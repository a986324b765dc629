"""When each snapshot of a repository was last used: one empty file per commit, with the time of its last change."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from p2pmodel.errors import LocalResource
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import RepoCache

_FOLDER = "used"


@translated()
def mark_used(repo: RepoCache, commit: str) -> None:
    """Record that the snapshot is used now."""
    folder = repo.made_private / _FOLDER
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
    found = [_changed(place / _FOLDER / commit) for place in repo.private_places]
    found.append(_changed(repo.snapshot(commit)))
    return min(max(found), clock())


@translated()
def forget_use(repo: RepoCache, commit: str) -> None:
    """Remove the record."""
    for place in repo.private_places:
        with suppress(FileNotFoundError):
            (place / _FOLDER / commit).unlink()


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
