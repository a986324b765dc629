"""Views of a cache: its size, its snapshots as commands and the control API list them, and whether one may be loaded.

Contents are not read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from p2pmodel.core.content.manifest import Selection
from p2pmodel.core.progress.views import SnapshotView
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import HubCache, OnUnreadable, RepoCache
from p2pmodel.store.files.space import free_bytes
from p2pmodel.store.snapshots.snapshot_list import is_visible, snapshots, unfinished


@dataclass(frozen=True, slots=True)
class CacheSummary:
    """`size` in bytes of the blobs of `snapshots` snapshots, each counted once, and bytes `free` on their disk.
    `doubted` blobs are damaged, or have changed since they were verified."""

    snapshots: int
    size: int
    free: int
    doubted: int = 0


@translated()
def summarize(cache: HubCache) -> CacheSummary:
    """The summary of `cache`. Blocks."""
    blobs: dict[tuple[str, str], int] = {}
    doubted: set[tuple[str, str]] = set()
    count = 0
    for snapshot in snapshots(cache):
        count += 1
        missing = {file.etag for file in snapshot.missing}
        present = (file for file in snapshot.manifest.files if file.etag not in missing)
        blobs |= {(str(snapshot.repo), file.etag): file.size for file in present}
        doubted |= {(str(snapshot.repo), file.etag) for file in snapshot.doubted}
    return CacheSummary(count, sum(blobs.values()), free_bytes(cache.root), len(doubted))


def unready(repo: RepoCache, commit: str | None, selections: Sequence[Selection] = ()) -> str:
    """Why the snapshot may not be loaded yet; "" if it may: the files in `selections` (none: all) are visible and were
    verified on this machine. Blocks."""
    manifest = repo.manifest(commit) if commit else None
    if commit is None or manifest is None:
        return "it is not in this cache"
    files = manifest.select_any(selections) if selections else manifest.files
    if missing := repo.missing(files):
        return f"{len(missing)} of {len(files)} files are missing"
    if not is_visible(repo, commit, files):
        return "its files are in the cache, but not all of them in the snapshot"
    unverified = [file for file in files if not repo.is_verified(file)]
    return f"{len(unverified)} of {len(files)} files are not verified (run 'p2pmodel verify')" if unverified else ""


def listed(cache: HubCache, on_unreadable: OnUnreadable | None = None) -> list[SnapshotView]:
    """All snapshots of `cache`, by repository; those that cannot be read go to `on_unreadable`. Contents are not read.
    Blocks."""
    views = []
    for held in snapshots(cache, on_unreadable):
        repo, manifest = cache.repo(held.repo), held.manifest
        staged = repo.staged.size_of(manifest.files) if held.missing else 0
        views.append(
            SnapshotView(
                repo=str(held.repo),
                commit=held.commit,
                revisions=held.refs,
                path=str(repo.snapshot(held.commit)),
                size=manifest.total_size,
                files=len(manifest.files),
                missing=len(held.missing),
                doubted=len(held.doubted),
                staged=staged,
                held=manifest.total_size - sum(file.size for file in held.missing) + staged,
            )
        )
    for begun in unfinished(cache):
        repo, manifest = cache.repo(begun.repo), begun.manifest
        views.append(
            SnapshotView(
                repo=str(begun.repo),
                commit=begun.commit,
                revisions=begun.refs,
                path=str(repo.snapshot(begun.commit)),
                size=manifest.total_size,
                files=len(manifest.files),
                missing=len(repo.missing(manifest.files)),
                staged=begun.staged,
                partial=True,
                held=begun.held,
            )
        )
    return sorted(views, key=lambda view: view.repo)
