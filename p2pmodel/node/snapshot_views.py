"""The snapshots of a cache as commands and the control API list them: complete ones, and those that are partly here."""

from p2pmodel.core.progress.views import SnapshotView
from p2pmodel.store.cache import HubCache, OnUnreadable
from p2pmodel.store.snapshots.snapshot_list import snapshots
from p2pmodel.store.state.unfinished import unfinished


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
