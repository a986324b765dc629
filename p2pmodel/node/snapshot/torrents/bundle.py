"""Bundles of snapshots: export one from the cache, import one into it.

An import trusts nothing in the archive. The torrent needs its voucher and its signature like any other; every file is
hashed whole before it has a name; the ref is last. It continues where it stopped, also within a file.
"""

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.coordinators import configured
from p2pmodel.coordinator.client.signatures import find_signatures
from p2pmodel.core.content.layout import piece_length_for
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import printable
from p2pmodel.core.tasks import in_thread
from p2pmodel.errors import IntegrityError, InvalidInput, LocalResource
from p2pmodel.node.reporter import Count, Reporter, reported
from p2pmodel.node.snapshot.evidence.content_check import check_contents
from p2pmodel.node.snapshot.evidence.second_opinion import SecondOpinion
from p2pmodel.node.snapshot.evidence.signature_check import signature_records
from p2pmodel.node.snapshot.evidence.signatures import signed_once
from p2pmodel.node.snapshot.local import not_cached
from p2pmodel.node.snapshot.lock import downloading
from p2pmodel.node.snapshot.resolve import confirmed_torrent
from p2pmodel.node.snapshot.target import statements_in
from p2pmodel.node.snapshot.torrents.torrent_builder import TorrentBuilder
from p2pmodel.node.snapshot.torrents.torrent_names import names_of
from p2pmodel.origin.origin import Origin
from p2pmodel.store.bundles import Bundle, BundledFile, open_bundle, write_bundle
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.files.partial_file import PartialFile
from p2pmodel.store.publish import check_publish_space, publish_blob, publish_snapshot
from p2pmodel.swarm.torrents import parse
from p2pmodel.trust.content_policy import ContentPolicy
from p2pmodel.trust.signatures.statement import written

_READ = 4 << 20
_AGAIN = "copy the rest of it, and run the same command again: it continues"


@dataclass(frozen=True, slots=True)
class ImportedBundle:
    """A snapshot that came from a bundle, and its voucher."""

    manifest: Manifest
    path: Path
    vouched_by: str
    refs: tuple[str, ...]


async def export_bundle(
    manifest: Manifest, settings: Settings, output: Path, reporter: Reporter, *, with_files: bool
) -> None:
    """Write the bundle of a complete snapshot in the cache: its torrent with the coordinators of the settings, the
    signed statements that this node has or its coordinators know, and a new one by its own key, if it has one.

    Raises EntryNotFound if a file is not in the cache, IntegrityError for a damaged one.
    """
    repo = HubCache(settings.cache_dir, settings.state_dir).known(manifest.repo)
    blobs = await asyncio.to_thread(_blobs, repo, manifest)
    trackers = [each.announce_url for each in configured(settings)]
    proves = settings.trust.signing_key is not None
    raw = (await TorrentBuilder(repo, manifest, reporter, proves=proves).build((), trackers=trackers))["v2"]
    metainfo = await asyncio.to_thread(parse, raw)
    records = signature_records(settings)
    kept = await asyncio.to_thread(records.statements, manifest.repo, manifest.commit)
    timeout = settings.swarm.coordinator_timeout
    asked = (
        () if settings.offline else await find_signatures(manifest.repo, manifest.commit, configured(settings), timeout)
    )
    known = tuple(dict.fromkeys((*kept, *asked)))
    own = await signed_once(metainfo, settings.trust.signing_key, known)
    for each in own:
        with suppress(LocalResource):  # kept, so that the next export gives the same archive
            await asyncio.to_thread(records.record, manifest.repo, manifest.commit, each)
    statements = written(sorted((*known, *own), key=lambda each: each.statement))
    listed = json.dumps(manifest.to_dict(), indent=1, sort_keys=True).encode() + b"\n"
    with reported(reporter, "hashing", manifest.total_size if with_files else 0) as count:
        await asyncio.to_thread(
            write_bundle,
            output,
            manifest=listed,
            torrent=raw,
            signatures=statements,
            files=blobs if with_files else [],
            count=count,
        )


class BundleImport:
    """One import of the archive at `path`. `names`: refs to set; none: `main`, as for a torrent."""

    def __init__(self, path: Path, settings: Settings, reporter: Reporter, *, names: Sequence[str] = ()) -> None:
        self._path = path
        self._settings = settings
        self._reporter = reporter
        self._names = tuple(names)
        self._policy = ContentPolicy(settings.contents.rules)
        self._cache = HubCache(settings.cache_dir, settings.state_dir, policy=self._policy)

    async def run(self) -> ImportedBundle:
        """Import. Raises as `confirmed_torrent`, and IntegrityError for an archive that is cut off or damaged: what was
        verified until there stays."""
        async with AsyncExitStack() as stack:
            opening = open_bundle(self._path)
            bundle = await in_thread(opening.__enter__, lambda _: opening.__exit__(None, None, None))
            stack.push_async_callback(asyncio.to_thread, opening.__exit__, None, None, None)
            if not bundle.files:
                raise InvalidInput(
                    f"{printable(str(self._path))} has no files",
                    hint=f"'p2pmodel fetch {printable(str(self._path))}' joins its swarm; or export it with --files",
                )
            metainfo = await asyncio.to_thread(parse, bundle.torrent)
            origin = await self._opened_origin(stack)
            statements = await asyncio.to_thread(statements_in, bundle.signatures)
            found = await confirmed_torrent(metainfo, statements, self._settings, origin, self._reporter)
            manifest = found.manifest
            await SecondOpinion(self._settings, origin).require(manifest)
            repo = self._cache.repo(manifest.repo)
            await check_contents(self._policy, repo, manifest, manifest.files, origin=None)
            refs = self._names or await names_of(manifest, self._settings, self._cache, origin, self._reporter)
            path = await self._import(bundle, manifest, refs)
        return ImportedBundle(manifest, path, found.vouched_by, refs)

    async def _opened_origin(self, stack: AsyncExitStack) -> Origin | None:
        if self._settings.offline:
            return None
        origin = Origin(self._settings.mirrors, self._settings.origin, on_note=self._reporter.note)
        return await stack.enter_async_context(origin)

    async def _import(self, bundle: Bundle, manifest: Manifest, refs: Sequence[str]) -> Path:
        repo = self._cache.repo(manifest.repo)
        await asyncio.to_thread(self._cache.check_usable, manifest.repo)
        async with downloading(repo, manifest, manifest.files, refs, self._reporter):
            absent = await asyncio.to_thread(repo.lacking, manifest.files)
            by_etag = {file.etag: file for file in absent}
            needed = sum(file.size for file in by_etag.values())
            await asyncio.to_thread(check_publish_space, repo, needed, manifest.files)
            with reported(self._reporter, "hashing", needed) as count:
                for file in by_etag.values():
                    await self._take(bundle, repo, manifest, file, count)
            return await asyncio.to_thread(publish_snapshot, repo, manifest, manifest.files, refs)

    async def _take(
        self, bundle: Bundle, repo: RepoCache, manifest: Manifest, file: ManifestFile, count: Count
    ) -> None:
        place = bundle.files.get(file.path)
        if place is None or place.size != file.size:
            raise IntegrityError(f"the bundle does not have {printable(file.path)} whole", hint=_AGAIN)
        await asyncio.to_thread(repo.staged.list, manifest)
        staged, length = await asyncio.to_thread(repo.staged.path_of, file), piece_length_for(manifest.total_size)
        opened = in_thread(lambda: PartialFile.open(staged, file, length), PartialFile.close)
        async with await opened as partial:
            count(file.size - sum(size for _, size in partial.missing()))
            for offset, size in partial.missing():
                await self._copy(bundle, place, partial, (offset, size), count)
            if await partial.digest() != file.etag:
                await partial.discard()
                raise IntegrityError(
                    f"{printable(file.path)} in the bundle is damaged: its hash is not {file.etag}",
                    hint="export the bundle again; what was imported before stays",
                )
        await asyncio.to_thread(publish_blob, repo, file, staged)

    async def _copy(
        self, bundle: Bundle, place: BundledFile, partial: PartialFile, gap: tuple[int, int], count: Count
    ) -> None:
        at, end = gap[0], gap[0] + gap[1]
        while at < end:
            data = await asyncio.to_thread(bundle.read, place, at, min(_READ, end - at))
            if not data:
                raise IntegrityError(f"{printable(str(self._path))} is cut off", hint=_AGAIN)
            await partial.write(at, data)
            count(len(data))
            at += len(data)


def _blobs(repo: RepoCache, manifest: Manifest) -> list[tuple[ManifestFile, Path]]:
    lacking = repo.lacking(manifest.files)
    if lacking:
        raise not_cached(manifest, *lacking)
    return [(file, blob) for file in manifest.files if (blob := repo.blob(file)) is not None]
