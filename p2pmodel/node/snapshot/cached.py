"""A snapshot of the cache that a command names."""

from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import RevisionNotFound
from p2pmodel.store.cache import HubCache
from p2pmodel.store.snapshots.commit_lookup import find_commit


def cached_manifest(cache: HubCache, ref: Reference) -> Manifest:
    """The manifest of `ref` in `cache`, also of a snapshot of which only a part is here. Raises RevisionNotFound.
    Blocks."""
    repo = cache.known(ref.repo)
    commit = find_commit(repo, ref.revision)
    manifest = repo.manifest(commit) if commit else None
    if manifest is None:
        raise RevisionNotFound(
            f"{ref} is not in the cache {cache.root}", hint="fetch it, or name another cache with --cache-dir"
        )
    return manifest
