"""The search for the snapshot that a reference means, and for its torrent: at the coordinators and at the mirrors."""

import asyncio
from collections.abc import Iterable
from typing import Any

from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.catalog import CatalogAnswer, find
from p2pmodel.coordinator.client.coordinators import configured
from p2pmodel.core import notes
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference, VersionRange
from p2pmodel.core.progress.progress import Progress
from p2pmodel.errors import (
    AccessDenied,
    InvalidInput,
    NotFound,
    P2PModelError,
    RevisionNotFound,
    Unavailable,
    Untrusted,
)
from p2pmodel.http_pool import HttpPool
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.evidence.signature_check import SignatureCheck
from p2pmodel.node.snapshot.evidence.voucher import (
    CACHE,
    RECORD,
    Vouching,
    differing,
    refused_torrents,
    unconfirmed,
    voucher_of,
)
from p2pmodel.node.snapshot.target import ResolvedTarget
from p2pmodel.store.cache import HubCache
from p2pmodel.store.snapshots.snapshot_list import expanded
from p2pmodel.swarm.torrents import Metainfo

MAX_CANDIDATES = 4
"""Torrents of one commit that are requested of the coordinators, one after another, until one fits."""


async def torrent_by_now(manifest: Manifest, settings: Settings, reporter: Reporter, http: HttpPool) -> Metainfo | None:
    """A torrent of `manifest`, which has its voucher, that the coordinators have now; None without one that fits."""
    ref, vouching = Reference(manifest.repo, manifest.commit), Vouching(settings, None)
    return await ReferenceSearch(ref, vouching, None, reporter, to_share=False, http=http).torrent_of(manifest)


async def from_mirrors_or_cache(
    ref: Reference, vouching: Vouching, cache: HubCache | None, reporter: Reporter
) -> tuple[Manifest, str]:
    """The manifest of `ref` at the mirrors, and its voucher; if none answers (or none may be asked), that of the cached
    revision. Without `cache` only a mirror's answer counts."""
    try:
        listing = await vouching.listing(ref)
    except Unavailable as error:
        held = await asyncio.to_thread(held_manifest, ref, cache) if cache is not None else None
        if held is None:
            raise
        if vouching.origin is not None:
            reporter.note(
                notes.warning(
                    "mirrors_unavailable",
                    f"{error}; using {ref} as it is in this cache ({held.commit[:8]})",
                    repo=str(ref.repo),
                    commit=held.commit,
                )
            )
        return held, CACHE
    return listing.manifest, voucher_of(listing)


class ReferenceSearch:
    """The search for the snapshot and the torrent of one reference; `cache` as in `from_mirrors_or_cache`."""

    def __init__(
        self,
        ref: Reference,
        vouching: Vouching,
        cache: HubCache | None,
        reporter: Reporter,
        *,
        to_share: bool,
        http: HttpPool | None = None,
    ) -> None:
        self._ref = ref
        self._refs = () if ref.pinned else (ref.revision,)
        self._vouching = vouching
        self._cache = cache
        self._reporter = reporter
        self._to_share = to_share
        self._http = http
        self._signatures = SignatureCheck(vouching.settings, reporter, http)
        self._untrusted: Untrusted | None = None
        """Why a torrent was refused."""

    async def run(self) -> ResolvedTarget:
        """The snapshot. Raises the most informative error of the sources, and Untrusted."""
        if isinstance(self._ref, VersionRange):
            self._ref = await self._version(self._ref)
            self._refs = (self._ref.revision,)
        try:
            found = await (self._by_coordinators() if self._vouching.by_coordinator else self._by_mirrors())
        except (Unavailable, NotFound, AccessDenied):
            if self._untrusted is None:
                raise
            raise self._untrusted from None
        return await self._signatures.checked(found)

    async def _version(self, wanted: VersionRange) -> Reference:
        """The name of the highest version in a range, as a coordinator has it. Then it is a name as any other."""
        if not self._vouching.settings.coordinators:
            raise InvalidInput(
                f"{wanted} is a range of versions", hint="give --coordinator URL, which knows the versions"
            )
        answer = await self._ask(wanted)
        if answer.metainfo is not None:
            return Reference(wanted.repo, answer.name)
        error = Unavailable if answer.unanswered else RevisionNotFound
        raise error(
            f"no coordinator has a version that matches {wanted} ({'; '.join(answer.reasons)})", hint="name a revision"
        )

    async def _by_coordinators(self) -> ResolvedTarget:
        """A coordinator's word is enough, for names too; mirrors are asked only without a torrent."""
        answer = await self._ask(self._ref)
        if answer.metainfo is not None:
            answer = await self._torrent_of(answer.metainfo.manifest, answer)
        if answer.metainfo is not None:
            voucher = await self._vouching.offhand(answer.metainfo.manifest)
            return self._target(answer.metainfo.manifest, answer, voucher)
        self._note_without_torrent(answer)
        manifest, voucher = await self._from_mirrors_or_cache()
        if not manifest.repo.is_spelling_of(self._ref.repo):  # the coordinators know it by its newer name
            answer = await self._torrent_of(manifest, answer)
        return self._target(manifest, answer, voucher)

    async def _by_mirrors(self) -> ResolvedTarget:
        """A mirror's word counts, for names too; it is asked at the same time as the coordinators."""
        asking = asyncio.ensure_future(self._ask(self._ref))
        listing = None if await self._is_recorded() else asyncio.ensure_future(self._from_mirrors_or_cache())
        try:
            known = await self._known_offhand(await asking) if self._ref.pinned else None
            if known and (listing is None or known.vouched_by != RECORD):  # else the record is that of this listing
                return known
            listing = listing or asyncio.ensure_future(self._from_mirrors_or_cache())
            try:
                manifest, voucher = await listing
            except P2PModelError as error:
                answer = await asking
                if answer.name and isinstance(error, RevisionNotFound | Unavailable):
                    return await self._by_alias(answer)
                if isinstance(error, RevisionNotFound) and answer.unanswered:
                    raise _perhaps_an_alias(error, answer) from None
                raise unconfirmed(self._ref, error) if answer.metainfo is not None else error from None
            if voucher == CACHE and (await asking).name and (known := await self._known_offhand(await asking)):
                return known
            answer = await self._torrent_of(manifest, await asking)
        finally:
            await _cancel(asking, listing)
        if answer.metainfo is None:
            self._note_without_torrent(answer)
        elif voucher == CACHE and not (voucher := await self._vouching.offhand(manifest)):
            return ResolvedTarget(manifest, None, self._refs, vouched_by=CACHE)
        return self._target(manifest, answer, voucher)

    async def _by_alias(self, answer: CatalogAnswer) -> ResolvedTarget:
        """The commit that an alias points at, which no mirror has a name for: it is vouched for as any commit."""
        assert answer.metainfo is not None
        self._ref = Reference(self._ref.repo, answer.metainfo.manifest.commit)
        return await self._by_mirrors()

    async def _is_recorded(self) -> bool:
        return self._ref.pinned and await self._vouching.record_of(self._ref) is not None

    async def _known_offhand(self, answer: CatalogAnswer) -> ResolvedTarget | None:
        """The coordinators' torrent of a pinned commit, if it needs no mirror's word."""
        if answer.metainfo is None or answer.metainfo.info_hash in await self._refused(answer.metainfo.manifest):
            return None
        if refusal := await self._signatures.refusal(answer.metainfo):
            self._untrusted = refusal
            return None
        manifest = answer.metainfo.manifest
        voucher = await self._signatures.voucher(answer.metainfo) or await self._vouching.offhand(manifest)
        return self._target(manifest, answer, voucher) if voucher else None

    async def torrent_of(self, manifest: Manifest) -> Metainfo | None:
        """A torrent of exactly `manifest` that the coordinators have, without those that this node refuses."""
        wrong = await self._refused(manifest)
        answer = await self._ask(Reference(manifest.repo, manifest.commit), wrong)
        return (await self._fitting(manifest, answer, wrong)).metainfo

    async def _torrent_of(self, manifest: Manifest, first: CatalogAnswer) -> CatalogAnswer:
        """The coordinators' answer with a torrent of exactly `manifest`, or without one. `first` is their answer for
        the name."""
        wrong = await self._refused(manifest)
        asked = self._ref.pinned and manifest.repo.is_spelling_of(self._ref.repo)
        if first.metainfo is None and first.lacking and not asked:
            first = await self._ask(Reference(manifest.repo, manifest.commit), wrong)
        return await self._fitting(manifest, first, wrong)

    async def _fitting(self, manifest: Manifest, answer: CatalogAnswer, refused: frozenset[str]) -> CatalogAnswer:
        wrong = set(refused)
        for _ in range(MAX_CANDIDATES):
            metainfo = answer.metainfo
            if metainfo is None:
                return answer
            if metainfo.info_hash not in wrong:
                if difference := differing(metainfo.manifest, manifest):
                    self._note_contradicted(metainfo, manifest, difference)
                elif refusal := await self._signatures.refusal(metainfo):
                    self._note_refused(metainfo, refusal)
                else:
                    return answer
                wrong.add(metainfo.info_hash)
            answer = await self._ask(Reference(manifest.repo, manifest.commit), wrong)
        return CatalogAnswer(None, answer.reasons, answer.lacking)

    async def _refused(self, manifest: Manifest) -> frozenset[str]:
        refused = refused_torrents(self._vouching.settings)
        return await asyncio.to_thread(refused.of, Reference(manifest.repo, manifest.commit))

    async def _ask(self, ref: Reference, wrong: Iterable[str] = ()) -> CatalogAnswer:
        settings = self._vouching.settings
        timeout = settings.swarm.coordinator_timeout
        return await find(ref, configured(settings), timeout, without=wrong, http=self._http)

    async def _from_mirrors_or_cache(self) -> tuple[Manifest, str]:
        if self._vouching.origin is not None:
            self._reporter.progress(Progress("finding", waiting_for="a mirror's list of files"))
        return await from_mirrors_or_cache(self._ref, self._vouching, self._cache, self._reporter)

    def _target(self, manifest: Manifest, answer: CatalogAnswer, voucher: str) -> ResolvedTarget:
        lacking = () if answer.metainfo else answer.lacking
        return ResolvedTarget(manifest, answer.metainfo, self._refs, lacking, vouched_by=voucher)

    def _note_contradicted(self, metainfo: Metainfo, manifest: Manifest, difference: str) -> None:
        ref = self._ref
        if metainfo.manifest.commit != manifest.commit:
            text = f"the mirrors say that {ref} is {manifest.commit[:8]}, not {metainfo.manifest.commit[:8]} as a"
            line = f"{text} coordinator does: using the mirrors' commit"
        else:
            line = f"the coordinators' torrent of {ref} is not that of the mirrors: {difference}; it is not used"
        self._reporter.note(
            notes.warning("torrent_contradicted", line, repo=str(ref.repo), info_hash=metainfo.info_hash)
        )

    def _note_refused(self, metainfo: Metainfo, refusal: Untrusted) -> None:
        self._untrusted = refusal
        repo, info_hash = str(self._ref.repo), metainfo.info_hash
        self._reporter.note(notes.warning("torrent_refused", refusal.what, repo=repo, info_hash=info_hash))

    def _note_without_torrent(self, answer: CatalogAnswer) -> None:
        ref, settings = self._ref, self._vouching.settings
        if not settings.coordinators:
            return
        if settings.offline:
            instead = "using this cache alone"
        elif self._to_share and answer.lacking:
            instead = "downloading from the mirrors, together with other nodes"
        else:
            instead = "downloading from the mirrors alone"
        self._reporter.note(
            notes.warning(
                "torrent_not_found",
                f"no coordinator has {ref} ({'; '.join(answer.reasons)}): {instead}",
                repo=str(ref.repo),
                revision=ref.revision,
            )
        )


async def _cancel(*tasks: "asyncio.Future[Any] | None") -> None:
    started = [task for task in tasks if task is not None]
    for task in started:
        task.cancel()
    await asyncio.gather(*started, return_exceptions=True)


def _perhaps_an_alias(error: RevisionNotFound, answer: CatalogAnswer) -> RevisionNotFound:
    """The error for a name that no mirror has, while some coordinator gave no answer."""
    reasons = "; ".join(answer.reasons)
    return RevisionNotFound(error.what, hint=f"it may be an alias of a coordinator, but none has it ({reasons})")


def held_manifest(ref: Reference, cache: HubCache, *, whole: bool = False) -> Manifest | None:
    """The cached manifest of `ref`; if `whole`, only if all its blobs are here and none is damaged."""
    repo = cache.known(ref.repo)
    commit = repo.resolve(ref.revision) or expanded(repo, ref.revision)
    manifest = repo.manifest(commit) if commit else None
    return None if manifest is None or (whole and repo.lacking(manifest.files)) else manifest
