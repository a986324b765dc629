"""What a cache holds, in numbers, and whether a snapshot in it may be loaded. Contents are not looked at."""

from collections.abc import Sequence
from dataclasses import dataclass

from p2pmodel.core.manifest import Selection
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.files.space import free_bytes
from p2pmodel.store.listing import is_visible, snapshots


@dataclass(frozen=True, slots=True)
class CacheSummary:
    """`size` in bytes of the blobs of `snapshots` snapshots, each counted once, and bytes `free` on their disk."""

    snapshots: int
    size: int
    free: int


@translated()
def holding(cache: HubCache) -> CacheSummary:
    """How much `cache` holds. Blocks."""
    blobs: dict[tuple[str, str], int] = {}
    count = 0
    for held in snapshots(cache):
        count += 1
        missing = {file.etag for file in held.missing}
        here = (file for file in held.manifest.files if file.etag not in missing)
        blobs |= {(str(held.repo), file.etag): file.size for file in here}
    return CacheSummary(count, sum(blobs.values()), free_bytes(cache.root))


def unready(repo: RepoCache, commit: str | None, selections: Sequence[Selection] = ()) -> str:
    """Why the snapshot may not be loaded yet; "" if it may: what `selections` take of it (none: all) is visible and was
    verified here. Blocks."""
    manifest = repo.manifest(commit) if commit else None
    if commit is None or manifest is None:
        return "it is not in this cache"
    files = manifest.select_any(selections) if selections else manifest.files
    if missing := repo.missing(files):
        return f"{len(missing)} of {len(files)} files are not here"
    if not is_visible(repo, commit, files):
        return "its files are here, but not all of them in the snapshot"
    unverified = [file for file in files if not repo.is_verified(file)]
    return (
        f"{len(unverified)} of {len(files)} files were not verified here ('p2pmodel verify' does)" if unverified else ""
    )
