"""The torrent of a complete snapshot in the cache, for `p2pmodel torrent create`."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from p2pmodel.core.manifest import Manifest, ManifestFile
from p2pmodel.core.names import Reference
from p2pmodel.errors import EntryNotFound, IntegrityError, RevisionNotFound
from p2pmodel.node.reporter import Reporter, reported
from p2pmodel.node.snapshot.inventory import adoptable
from p2pmodel.node.snapshot.torrent_builder import TorrentBuilder
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.files.parallel import Count, default_jobs, in_parallel
from p2pmodel.swarm.torrents import Format
from p2pmodel.swarm.urls import TRACKER_SCHEMES, WEB_SCHEMES, check_url


@dataclass(frozen=True, slots=True)
class CreatedTorrent:
    """The .torrent bytes `raw`, and the snapshot they describe."""

    manifest: Manifest
    raw: bytes


async def create_torrent(
    cache: HubCache,
    ref: Reference,
    *,
    format: Format = "v2",  # noqa: A002
    trackers: Sequence[str] = (),
    endpoints: Sequence[str] = (),
    reporter: Reporter | None = None,
) -> CreatedTorrent:
    """Build the torrent of `ref` from `cache` alone, with the hubs and mirrors at `endpoints` as web seeds.

    Blobs that were not verified before are checked against the hub's hash. Raises RevisionNotFound and
    EntryNotFound if the cache lacks something, IntegrityError for a damaged blob, InvalidInput for a bad URL.
    """
    for url in trackers:
        check_url(url, TRACKER_SCHEMES, "tracker")
    for url in endpoints:
        check_url(url, WEB_SCHEMES, "endpoint")
    repo = cache.repo(ref.repo)
    commit = await asyncio.to_thread(repo.resolve, ref.revision)
    manifest = await asyncio.to_thread(repo.manifest, commit) if commit else None
    if manifest is None:
        raise RevisionNotFound(f"{ref} is not in the cache {cache.root}", hint=f"run 'p2pmodel fetch {ref}' first")
    progress = reporter or Reporter()
    await _check(repo, manifest, progress)
    built = await TorrentBuilder(repo, manifest, progress).build((format,), trackers=trackers, endpoints=endpoints)
    return CreatedTorrent(manifest, built[format])


async def _check(repo: RepoCache, manifest: Manifest, reporter: Reporter) -> None:
    """Raise unless every blob is present and right: a torrent of damaged bytes would spread them."""

    def work(file: ManifestFile, counted: Count) -> None:
        if repo.blob(file) is None:
            raise EntryNotFound(
                f"{file.path} of {manifest.repo}@{manifest.commit} is not in the cache",
                hint=f"run 'p2pmodel fetch {manifest.repo}@{manifest.commit}' first",
            )
        if adoptable(repo, file, counted) is None:
            raise IntegrityError(
                f"{file.path} of {manifest.repo}@{manifest.commit} is damaged in the cache",
                hint=f"'p2pmodel fetch {manifest.repo}@{manifest.commit}' repairs it",
            )

    largest_first = sorted(manifest.files, key=lambda f: -f.size)
    with reported(reporter, "checking", manifest.total_size) as count:
        await asyncio.to_thread(in_parallel, largest_first, work, default_jobs(), count)
