"""Seed a snapshot: one verified copy, its torrents, and serving them until stopped.

Two steps, because the trackers' addresses go into the torrents: the caller starts its coordinator first, then calls
`prepare`, publishes the torrents, and runs `serve`.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from p2pmodel.config.sections.mirrors import OFFICIAL_ENDPOINT
from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.urls import announcing_as, as_peer
from p2pmodel.core import notes
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference, RepoId
from p2pmodel.core.pace import Pace
from p2pmodel.core.tasks import companions, in_thread
from p2pmodel.errors import IntegrityError, InvalidInput, LocalResource, P2PModelError
from p2pmodel.node.private.authority import authority_of
from p2pmodel.node.private.membership import PublicSwarm, SwarmMembership
from p2pmodel.node.reporter import Progress, Reporter
from p2pmodel.node.snapshot.doubt import removed_by_another
from p2pmodel.node.snapshot.evidence.content_check import check_contents
from p2pmodel.node.snapshot.evidence.second_opinion import SecondOpinion
from p2pmodel.node.snapshot.evidence.signature_check import SignatureCheck, signature_records
from p2pmodel.node.snapshot.evidence.signatures import publishable, signed
from p2pmodel.node.snapshot.evidence.voucher import Vouching, confirmed
from p2pmodel.node.snapshot.local import import_snapshot
from p2pmodel.node.snapshot.lock import downloading
from p2pmodel.node.snapshot.mirror_copy import MirrorCopy, MirrorCopyResult
from p2pmodel.node.snapshot.piece_checks import PieceChecks
from p2pmodel.node.snapshot.reference_search import from_mirrors_or_cache
from p2pmodel.node.snapshot.torrents.torrent_builder import TorrentBuilder
from p2pmodel.node.trouble import AnnounceTrouble
from p2pmodel.origin.lookup import Listing
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.file_links import FileLinks
from p2pmodel.store.snapshots.snapshot_list import SnapshotCheck, check_snapshot
from p2pmodel.swarm.engine import (
    AddTorrent,
    DiskFailed,
    Engine,
    SwarmTorrent,
    TrackerAnswered,
    TrackerFailed,
    TrackerWarned,
)
from p2pmodel.swarm.metainfo import Format, file_indexes, layout_of, v1_piece_count
from p2pmodel.swarm.torrents import Metainfo, info_hash_of, parse
from p2pmodel.trust.content_policy import ContentPolicy
from p2pmodel.trust.signatures.statement import SignedStatement

REPORT_EVERY = 0.5
LOOK_EVERY = 5.0
"""Seconds between two comparisons of the seeded files with the records."""


@dataclass(frozen=True, slots=True)
class SeedRequest:
    """What to seed: `ref` from the mirrors, or `directory`, imported as `ref`; `exports` are formats besides v2.
    `assemble`: nodes of the coordinators that fetch `ref` now are sources, too."""

    ref: Reference
    directory: Path | None = None
    exports: tuple[Format, ...] = ()
    private: bool = False
    """Whether its swarm is private, also where the settings do not cover the repository."""
    assemble: bool = False


@dataclass(frozen=True, slots=True)
class SeedResult:
    """A snapshot that is complete here, and its .torrent bytes by format, always including "v2"."""

    manifest: Manifest
    path: Path
    torrents: dict[Format, bytes]
    trackers: tuple[str, ...]
    from_cache: int
    from_mirrors: int
    signatures: Mapping[Format, tuple[SignedStatement, ...]] = field(default_factory=dict)
    """By format, the signatures of its torrents."""
    private: bool = False
    """Whether its swarm is private."""


Offering = Callable[[Manifest, SwarmMembership], AbstractAsyncContextManager[None]]
"""Serves a private snapshot over HTTP to members of its swarm while the context lasts."""


class SentCounter(Protocol):
    """Counts bytes sent over HTTP."""

    @property
    def bytes(self) -> int:
        """Bytes so far."""


class SeedRun:
    """One snapshot seeded by this node."""

    def __init__(self, request: SeedRequest, settings: Settings, reporter: Reporter) -> None:
        self._request = request
        self._settings = settings
        self._reporter = reporter
        self._cache = HubCache(settings.cache_dir, settings.state_dir, policy=ContentPolicy(settings.contents.rules))

    async def prepare(self, trackers: Sequence[str]) -> SeedResult:
        """Mirror or import the snapshot, verify it, and build its torrents with `trackers` and the mirrors in them."""
        await asyncio.to_thread(self._cache.check_usable, self._request.ref.repo)
        self._reporter.progress(Progress("finding"))
        async with AsyncExitStack() as stack:
            origin = await self._opened_origin(stack)
            manifest = await self._manifest(origin)
            repo = self._cache.repo(manifest.repo)
            policy = ContentPolicy(self._settings.contents.rules)
            await check_contents(policy, repo, manifest, manifest.files, origin=origin)
            async with downloading(repo, manifest, manifest.files, self._refs(), self._reporter):
                source = origin if self._request.directory is None else None
                mirrored = await MirrorCopy(source, repo, manifest, self._reporter).run(manifest.files, self._refs())
                return await self._build(repo, manifest, mirrored, trackers)

    def authority(self) -> str | None:
        """The root certificate of its private swarm; None for a public one. Blocks for a moment. Raises InvalidInput,
        also for what a private swarm has not: other formats, and an assembly."""
        request, private = self._request, self._settings.private
        authority = authority_of(request.ref.repo, private, asked=request.private)
        if authority is not None and request.exports:
            raise InvalidInput("a private swarm needs a v2 torrent", hint="leave --format out")
        if authority is not None and request.assemble:
            raise InvalidInput(
                f"{request.ref.repo} is private, and private snapshots are not assembled", hint="leave --assemble out"
            )
        return authority

    async def _opened_origin(self, stack: AsyncExitStack) -> Origin | None:
        if self._settings.offline:
            return None
        pace = Pace(self._settings.swarm.download_limit)
        origin = Origin(self._settings.mirrors, self._settings.origin, on_note=self._reporter.note, pace=pace)
        return await stack.enter_async_context(origin)

    async def _repair(self, seeded: SeedResult) -> None:
        """Bring the doubted files of `seeded` again, from where they came. Its refs may point elsewhere by now."""
        manifest, repo, directory = seeded.manifest, self._cache.repo(seeded.manifest.repo), self._request.directory
        if directory is not None:
            again = await import_snapshot(self._cache, directory, self._request.ref, self._reporter)
            if again.files != manifest.files:
                raise IntegrityError(
                    f"{directory} is no longer what is seeded: damaged files cannot be repaired from it",
                    hint="restore the directory, or run the command again to seed its present content",
                )
            return
        async with AsyncExitStack() as stack:
            origin = await self._opened_origin(stack)
            owned = downloading(repo, manifest, manifest.files, (), self._reporter)
            await stack.enter_async_context(owned)
            await MirrorCopy(origin, repo, manifest, self._reporter).run(manifest.files, ())

    async def serve(
        self,
        seeded: SeedResult,
        engine: Engine,
        on_serving: Callable[[], None],
        sent: SentCounter | None = None,
        *,
        coordinators: Sequence[Coordinator] = (),
        offering: Offering | None = None,
    ) -> None:
        """Seed every torrent of `seeded` with `engine` until cancelled; `on_serving` is called once peers can connect.

        `sent` counts the bytes sent to leaseholders outside the swarm, `coordinators` admit to a private swarm, and
        `offering` serves its members over HTTP. When
        files are damaged, or changed on the disk, it leaves the swarms and brings these files again. Raises
        LocalResource when the disk fails or another program removed the snapshot, and the reason when the files cannot
        be had.
        """
        while True:
            found = await self._serve_sound(
                *(seeded, engine, on_serving, sent), coordinators=coordinators, offering=offering
            )
            if found.removed:
                raise removed_by_another(self._cache.repo(seeded.manifest.repo), seeded.manifest.commit)
            self._reporter.note(notes.warning("files_doubted", f"{found}: downloading those files again"))
            await self._repair(seeded)
            on_serving = _ignore

    async def _serve_sound(
        self,
        seeded: SeedResult,
        engine: Engine,
        on_serving: Callable[[], None],
        sent: SentCounter | None,
        *,
        coordinators: Sequence[Coordinator],
        offering: Offering | None,
    ) -> SnapshotCheck:
        """Seed until a comparison of the files with the records finds something wrong; returns what."""
        manifest, repo = seeded.manifest, self._cache.repo(seeded.manifest.repo)
        async with AsyncExitStack() as stack:
            torrents: list[SwarmTorrent] = []
            blobs = ((file, None) for file in manifest.files)
            links = await in_thread(partial(FileLinks.to, repo, blobs), FileLinks.remove)
            stack.push_async_callback(asyncio.to_thread, links.remove)
            metainfo = await asyncio.to_thread(parse, seeded.torrents["v2"])
            membership = await self._joined(metainfo, engine, coordinators)
            stack.push_async_callback(membership.close)
            for form in seeded.torrents:
                torrents.append(await membership.add(engine, self._request_of(seeded, form, links)))
                stack.push_async_callback(torrents[-1].remove)
            if offering is not None and isinstance(membership, SwarmMembership):
                await stack.enter_async_context(offering(manifest, membership))
            async with companions() as start:
                checks = PieceChecks(repo, metainfo, self._reporter.note)
                start(checks.run())
                start(membership.watch())
                for torrent in torrents:
                    start(_follow(torrent, checks, AnnounceTrouble(self._reporter.note)))
                on_serving()
                next_look = time.monotonic() + LOOK_EVERY
                while True:
                    self._reporter.progress(_progress(seeded, torrents, sent.bytes if sent else 0))
                    await asyncio.sleep(REPORT_EVERY)
                    if time.monotonic() >= next_look:
                        found = await asyncio.to_thread(check_snapshot, repo, manifest.commit, manifest.files)
                        if not found.sound:
                            return found
                        next_look = time.monotonic() + LOOK_EVERY

    async def _manifest(self, origin: Origin | None) -> Manifest:
        ref = self._request.ref
        vouching = Vouching(self._settings, origin)
        if self._request.directory is None:
            manifest = (await from_mirrors_or_cache(ref, vouching, self._cache, self._reporter))[0]
            if self._settings.trust.signing_key is None:  # a publisher that signs vouches itself
                await SignatureCheck(self._settings, self._reporter).require(manifest)
            await SecondOpinion(self._settings, origin).require(manifest)
            return manifest
        listing = await self._listing(vouching)
        check = partial(confirmed, listing=listing) if listing else lambda _manifest: None
        return await import_snapshot(self._cache, self._request.directory, ref, self._reporter, check=check)

    async def _listing(self, vouching: Vouching) -> Listing | None:
        """The files that a mirror lists for the commit of an imported folder. None where the folder names no commit,
        and where no mirror knows it or answers soon."""
        if not self._request.ref.pinned or vouching.origin is None or vouching.by_coordinator:
            return None
        try:
            async with asyncio.timeout(self._settings.origin.connect_timeout):
                return await vouching.listing(self._request.ref)
        except (P2PModelError, TimeoutError):
            return None

    def _refs(self) -> tuple[str, ...]:
        return () if self._request.ref.pinned else (self._request.ref.revision,)

    async def _build(
        self, repo: RepoCache, manifest: Manifest, mirrored: MirrorCopyResult, trackers: Sequence[str]
    ) -> SeedResult:
        if not manifest.total_size:
            raise InvalidInput(f"{manifest.repo} has no content to seed", hint="all its files are empty")
        authority = await asyncio.to_thread(self.authority)
        builder = TorrentBuilder(
            *(repo, manifest, self._reporter),
            known=mirrored.trees,
            authority=authority,
            proves=self._settings.trust.signing_key is not None,
        )
        endpoints = self._webseeds(manifest.repo)
        torrents = await builder.build(self._request.exports, trackers=trackers, endpoints=endpoints)
        path = repo.snapshot(manifest.commit)
        counts, private = (mirrored.from_cache, mirrored.from_mirrors), authority is not None
        signatures = await self._signatures(manifest, torrents)
        return SeedResult(manifest, path, torrents, tuple(trackers), *counts, signatures=signatures, private=private)

    async def _signatures(
        self, manifest: Manifest, torrents: Mapping[Format, bytes]
    ) -> dict[Format, tuple[SignedStatement, ...]]:
        key = self._settings.trust.signing_key
        hashes = await asyncio.to_thread(lambda: {form: info_hash_of(raw) for form, raw in torrents.items()})
        # Those of others, by which this node may have the files: a coordinator that lost them gets them back.
        records = signature_records(self._settings)
        kept = await asyncio.to_thread(records.statements, manifest.repo, manifest.commit)
        found = {}
        for form, info_hash in hashes.items():
            own = await signed(manifest, [info_hash], key)
            found[form] = await asyncio.to_thread(publishable, (*own, *kept), manifest, [info_hash])
        return found

    def _webseeds(self, repo: RepoId) -> list[str]:
        """Endpoints of the mirrors, without the public hub for an imported directory, which the hub does not have."""
        endpoints = self._settings.webseeds(repo)
        return [e for e in endpoints if self._request.directory is None or e != OFFICIAL_ENDPOINT]

    async def _joined(
        self, metainfo: Metainfo, engine: Engine, coordinators: Sequence[Coordinator]
    ) -> PublicSwarm | SwarmMembership:
        if metainfo.authority is None:
            return PublicSwarm()
        membership, swarm = SwarmMembership(coordinators, self._reporter), self._settings.swarm
        hosts = (engine.address[0], *(each.host for each in swarm.advertised))
        await membership.join(metainfo, hosts, timeout=swarm.coordinator_timeout)
        return membership

    def _request_of(self, seeded: SeedResult, form: Format, links: FileLinks) -> AddTorrent:
        repo = self._cache.repo(seeded.manifest.repo)
        layout, swarm = layout_of(seeded.manifest), self._settings.swarm
        files = {index: str(links.path(number)) for number, index in enumerate(file_indexes(layout, form))}
        piece_count = v1_piece_count(layout, padded=False) if form == "v1" else layout.piece_count
        trackers = tuple(as_peer(url, swarm.zone, swarm.advertise) for url in seeded.trackers)
        return AddTorrent(
            metainfo=seeded.torrents[form],
            save_path=repo.folder,
            files=files,
            have=frozenset(range(piece_count)),
            trackers=tuple(announcing_as("source", url) for url in trackers),
        )


def _progress(seeded: SeedResult, torrents: Sequence[SwarmTorrent], sent: int) -> Progress:
    statuses = [torrent.status() for torrent in torrents]
    size = seeded.manifest.total_size
    return Progress(
        "seeding",
        size,
        size,
        from_cache=seeded.from_cache,
        from_mirrors=seeded.from_mirrors,
        uploaded=sent + sum(status.uploaded for status in statuses),
        peers=sum(status.peers for status in statuses),
        upload_rate=sum(status.upload_rate for status in statuses),
    )


def _ignore() -> None:
    """Serving again is no news."""


async def _follow(torrent: SwarmTorrent, checks: PieceChecks, trouble: AnnounceTrouble) -> None:
    """Check what peers complain about, and fail with the disk. Only v2 swarms have leaseholders that complain."""
    async for event in torrent.events():
        if isinstance(event, TrackerWarned):
            checks.warned(event.message)
            trouble.warned(event.url, event.message)
        if isinstance(event, TrackerAnswered):
            trouble.answered(event.url)
        if isinstance(event, TrackerFailed):
            trouble.failed(event.url, event.message)
        if isinstance(event, DiskFailed):
            raise LocalResource(
                f"cannot read {event.path}: {event.message}", hint="run 'p2pmodel verify' to find damaged files"
            )
