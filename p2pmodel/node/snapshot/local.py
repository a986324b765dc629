"""Work on snapshots without the network: import one, verify one."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference
from p2pmodel.node.reporter import Reporter, reported
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.imports.directory_scan import scan_directory
from p2pmodel.store.imports.importer import import_directory
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
