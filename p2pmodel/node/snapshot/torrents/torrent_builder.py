"""Torrents of a complete snapshot in the cache."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from p2pmodel.coordinator.tokens import without_key
from p2pmodel.core.content.layout import piece_length_for
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.merkle import FileTree
from p2pmodel.core.content.names import Reference
from p2pmodel.core.network.addresses import is_ip, is_reachable
from p2pmodel.errors import BadTorrent, IntegrityError
from p2pmodel.node.reporter import Reporter, reported
from p2pmodel.node.snapshot.local import cached_manifest, not_cached
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.files.hashing import hash_snapshot, v1_pieces
from p2pmodel.store.files.parallel import Count, default_jobs, in_parallel
from p2pmodel.store.verify import adoptable, rehash
from p2pmodel.swarm.torrents import Format, build, parse
from p2pmodel.swarm.urls import TRACKER_SCHEMES, WEB_SCHEMES, check_url, webseed_url


class TorrentBuilder:
    """Builds the torrents of one snapshot, and hashes only files without a known tree.

    `known` are trees of files hashed while they were mirrored. The trees of an earlier torrent are used too, if the
    blobs have not changed since. `authority`: the root certificate of the snapshot's private swarm, if it has one.

    `proves`: the torrent is going to be signed, and nodes may take its signature for the hashes of whole files
    (`trust.file_hashes`). So each tree is of bytes with the hub's hash: both are taken in one pass.
    """

    def __init__(
        self,
        repo: RepoCache,
        manifest: Manifest,
        reporter: Reporter,
        *,
        known: Mapping[str, FileTree] | None = None,
        authority: str | None = None,
        proves: bool = False,
    ) -> None:
        self._authority = authority
        self._proves = proves
        self._repo = repo
        self._manifest = manifest
        self._reporter = reporter
        self._staging = repo.staging(manifest.commit)
        self._known = dict(known or {})

    async def build(
        self, formats: Sequence[Format], *, trackers: Sequence[str] = (), endpoints: Sequence[str] = ()
    ) -> dict[Format, bytes]:
        """The .torrent bytes by format, v2 always among them, with the mirrors at `endpoints` as web seeds. One of a
        private swarm has no announce keys: its nodes announce with their own, and no other client joins it.

        Raises EntryNotFound when the cache lacks a file, IntegrityError when a file proves damaged. Hashes in threads
        and reports progress.
        """
        trees = await self._trees()
        built: dict[Format, bytes] = {}
        trackers = trackers if self._authority is None else list(map(without_key, trackers))
        for form in _distinct("v2", *formats):
            pieces = await self._v1_pieces(form) if form != "v2" else None
            shared = _for_others(endpoints, trackers)
            webseeds = [webseed_url(endpoint, self._manifest, form) for endpoint in shared]
            built[form] = build(
                *(self._manifest, trees),
                format=form,
                v1_pieces=pieces,
                trackers=trackers,
                webseeds=webseeds,
                authority=self._authority,
            )
        await asyncio.to_thread(self._staging.save_metainfo, built["v2"])
        return built

    async def _trees(self) -> dict[str, FileTree]:
        known = self._known | await asyncio.to_thread(self._recorded)
        rest = [f for f in self._manifest.files if f.size and f.path not in known]
        if rest:
            blobs = await asyncio.to_thread(self._blobs, rest)
            with reported(self._reporter, "hashing", sum(file.size for file in rest)) as count:
                found = await asyncio.to_thread(
                    hash_snapshot, blobs, self._piece_length, contents=self._proves, on_bytes=count
                )
            if self._proves:
                await asyncio.to_thread(self._check, found.etags)
            known |= found.trees
        return known

    def _check(self, etags: Mapping[str, str]) -> None:
        """Raise unless the hashed files have the hub's hashes, `etags` by path."""
        for file in self._manifest.files:
            if etags.get(file.path, file.etag) != file.etag:
                rehash(self._repo, file)  # it is recorded as damaged, so that the next fetch repairs it
                raise _damaged(self._manifest, file)

    async def _v1_pieces(self, form: Format) -> bytes:
        blobs = await asyncio.to_thread(self._blobs, self._manifest.files)
        files = [(file.size, blob) for file, blob in blobs]
        with reported(self._reporter, "hashing", self._manifest.total_size) as count:
            return await asyncio.to_thread(
                v1_pieces, files, self._piece_length, pad=form == "hybrid", on_bytes=count, jobs=default_jobs()
            )

    def _recorded(self) -> dict[str, FileTree]:
        """Trees from the torrent by which this commit was last downloaded or built."""
        raw = self._staging.load_metainfo()
        try:
            metainfo = parse(raw) if raw else None
        except BadTorrent:
            return {}
        if metainfo is None or metainfo.manifest != self._manifest:
            return {}
        return {
            file.path: metainfo.trees[file.path]
            for file in self._manifest.files
            if file.size and self._repo.is_verified(file)
        }

    def _blobs(self, files: Sequence[ManifestFile]) -> list[tuple[ManifestFile, Path]]:
        found = []
        for file in files:
            blob = self._repo.blob(file)
            if blob is None:
                raise not_cached(self._manifest, file)
            found.append((file, blob))
        return found

    @property
    def _piece_length(self) -> int:
        return piece_length_for(self._manifest.total_size)


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
    authority: str | None = None,
    proves: bool = False,
) -> CreatedTorrent:
    """Build the torrent of `ref` from `cache` alone, with the hubs and mirrors at `endpoints` as web seeds. `authority`
    and `proves` as in `TorrentBuilder`.

    Blobs that were not verified before are checked against the hub's hash. Raises RevisionNotFound and
    EntryNotFound if the cache lacks something, IntegrityError for a damaged blob, InvalidInput for a bad URL.
    """
    for url in trackers:
        check_url(url, TRACKER_SCHEMES, "tracker")
    for url in endpoints:
        check_url(url, WEB_SCHEMES, "endpoint")
    repo = await asyncio.to_thread(cache.known, ref.repo)
    manifest = await asyncio.to_thread(cached_manifest, cache, ref)
    progress = reporter or Reporter()
    await _check(repo, manifest, progress)
    built = await TorrentBuilder(repo, manifest, progress, authority=authority, proves=proves).build(
        (format,), trackers=trackers, endpoints=endpoints
    )
    return CreatedTorrent(manifest, built[format])


async def _check(repo: RepoCache, manifest: Manifest, reporter: Reporter) -> None:
    """Raise unless every blob is present and right: a torrent of damaged bytes would spread them."""

    def work(file: ManifestFile, counted: Count) -> None:
        if repo.blob(file) is None:
            raise not_cached(manifest, file)
        if adoptable(repo, file, counted) is None:
            raise _damaged(manifest, file)

    largest_first = sorted(manifest.files, key=lambda f: -f.size)
    with reported(reporter, "checking", manifest.total_size) as count:
        await asyncio.to_thread(in_parallel, largest_first, work, default_jobs(), count)


def _damaged(manifest: Manifest, file: ManifestFile) -> IntegrityError:
    return IntegrityError(
        f"{file.path} of {manifest.repo}@{manifest.commit} is damaged in the cache",
        hint=f"'p2pmodel fetch {manifest.repo}@{manifest.commit}' repairs it",
    )


def _for_others(endpoints: Sequence[str], trackers: Sequence[str]) -> list[str]:
    """The `endpoints` that clients of the torrent reach: none on loopback, unless all its trackers are there, too."""
    if all(_is_local(url) for url in trackers):
        return list(endpoints)
    return [url for url in endpoints if not _is_local(url)]


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host == "localhost" or (is_ip(host) and not is_reachable(host))


def _distinct(*formats: Format) -> list[Format]:
    return list(dict.fromkeys(formats))
