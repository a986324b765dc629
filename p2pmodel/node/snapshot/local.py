"""Work on snapshots without the network: find one, import one, verify one."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import Reference
from p2pmodel.core.sizes import counted
from p2pmodel.errors import EntryNotFound, RevisionNotFound
from p2pmodel.node.reporter import Reporter, reported
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.importer import import_directory, scan_directory
from p2pmodel.store.snapshots.snapshot_list import find_commit
from p2pmodel.store.verify import VerifyReport, verify


async def import_snapshot(
    cache: HubCache,
    source: Path,
    ref: Reference,
    reporter: Reporter,
    *,
    private: bool = False,
    check: Callable[[Manifest], object] = lambda _manifest: None,
) -> Manifest:
    """`store.import_directory` with progress. A cancellation ends it at once, without a visible snapshot."""
    files = await asyncio.to_thread(scan_directory, source)
    with reported(reporter, "hashing", sum(file.size for file in files)) as count:
        return await asyncio.to_thread(
            import_directory, cache, source, ref, private=private, check=check, on_bytes=count
        )


async def verify_snapshot(repo: RepoCache, manifest: Manifest, reporter: Reporter) -> VerifyReport:
    """`store.verify` with progress. A cancellation ends it at once."""
    with reported(reporter, "checking", manifest.total_size) as count:
        return await asyncio.to_thread(verify, repo, manifest, progress=count)


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


def not_cached(manifest: Manifest, *files: ManifestFile) -> EntryNotFound:
    """The error for `files` of a snapshot, at least one, that have no blob in the cache."""
    snapshot = f"{manifest.repo}@{manifest.commit}"
    which, verb = (files[0].path, "is") if len(files) == 1 else (counted(len(files), "file"), "are")
    return EntryNotFound(
        f"{which} of {snapshot} {verb} not in the cache", hint=f"run 'p2pmodel fetch {snapshot}' first"
    )
