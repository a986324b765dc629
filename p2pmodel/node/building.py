"""Torrents of a snapshot that is complete in this cache."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from p2pmodel.domain.layout import piece_length_for
from p2pmodel.domain.manifest import Manifest, ManifestFile
from p2pmodel.domain.merkle import FileTree
from p2pmodel.errors import BadTorrent, EntryNotFound, Interrupted
from p2pmodel.node.progress import Progress, Reporter
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.hashing import SnapshotHashes, hash_snapshot
from p2pmodel.swarm.torrents import Format, build, parse
from p2pmodel.swarm.urls import webseed_url


class TorrentBuilder:
    """Builds the torrents of one snapshot, hashing only what is not known yet.

    `known` are trees of files hashed while they were mirrored; those of a torrent built earlier are used too, as far
    as the blobs have not changed since.
    """

    def __init__(
        self, repo: RepoCache, manifest: Manifest, reporter: Reporter, *, known: Mapping[str, FileTree] | None = None
    ) -> None:
        self._repo = repo
        self._manifest = manifest
        self._reporter = reporter
        self._staging = repo.staging(manifest.commit)
        self._known = dict(known or {})
        self._hashed = 0

    async def build(
        self, formats: Sequence[Format], *, trackers: Sequence[str] = (), endpoints: Sequence[str] = ()
    ) -> dict[Format, bytes]:
        """The .torrent bytes by format, v2 always among them, with the mirrors at `endpoints` as webseeds.

        Raises EntryNotFound when the cache lacks a file. Hashes in threads and reports progress.
        """
        trees = await self._trees()
        built: dict[Format, bytes] = {}
        for form in _distinct("v2", *formats):
            pieces = await self._v1_pieces(form) if form != "v2" else None
            webseeds = [webseed_url(endpoint, self._manifest, form) for endpoint in endpoints]
            built[form] = build(
                self._manifest, trees, format=form, v1_pieces=pieces, trackers=trackers, webseeds=webseeds
            )
        await asyncio.to_thread(self._staging.save_metainfo, built["v2"])
        return built

    async def _trees(self) -> dict[str, FileTree]:
        known = await asyncio.to_thread(self._recorded) | self._known
        rest = [f for f in self._manifest.files if f.size and f.path not in known]
        if rest:
            known |= (await self._hash(rest, None)).trees
        return known

    async def _v1_pieces(self, form: Format) -> bytes:
        mode: Literal["hybrid", "v1"] = "hybrid" if form == "hybrid" else "v1"
        hashes = await self._hash(self._manifest.files, mode)
        assert hashes.v1_pieces is not None
        return hashes.v1_pieces

    async def _hash(self, files: Sequence[ManifestFile], v1: Literal["hybrid", "v1"] | None) -> SnapshotHashes:
        blobs = await asyncio.to_thread(self._blobs, files)
        counter = _HashProgress(self._reporter, sum(file.size for file in files))
        try:
            return await asyncio.to_thread(hash_snapshot, blobs, self._piece_length, v1=v1, on_bytes=counter)
        finally:
            counter.stop()

    def _recorded(self) -> dict[str, FileTree]:
        """Trees from the torrent this commit last arrived or was built with."""
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
                raise EntryNotFound(
                    f"{file.path} of {self._manifest.repo} is not in this cache", hint="run 'p2pmodel seed' or 'fetch'"
                )
            found.append((file, blob))
        return found

    @property
    def _piece_length(self) -> int:
        return piece_length_for(self._manifest.total_size)


def _distinct(*formats: Format) -> list[Format]:
    return list(dict.fromkeys(formats))


class _HashProgress:
    """Counts bytes hashed in threads and reports on the event loop that made it."""

    def __init__(self, reporter: Reporter, total: int) -> None:
        self._reporter = reporter
        self._total = total
        self._done = 0
        self._stopped = False
        self._loop = asyncio.get_running_loop()

    def stop(self) -> None:
        """End the pass at its next report: nobody waits for it any more."""
        self._stopped = True

    def __call__(self, count: int) -> None:
        if self._stopped:
            raise Interrupted("hashing was stopped")
        self._done += count
        progress = Progress("hashing", self._total, min(self._done, self._total))
        self._loop.call_soon_threadsafe(self._reporter.progress, progress)
