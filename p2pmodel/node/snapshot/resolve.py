"""Resolve a fetch target: the snapshot, its torrent if a coordinator, a file or a magnet has one, and its voucher."""

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.coordinators import Coordinator, configured, foreign_trackers, trackers_with
from p2pmodel.coordinator.client.torrent_download import download_torrent, public_path
from p2pmodel.coordinator.client.urls import public_name
from p2pmodel.core import notes
from p2pmodel.core.content.names import Reference, abbreviates
from p2pmodel.core.network.egress import Egress
from p2pmodel.errors import P2PModelError
from p2pmodel.http_pool import HttpPool
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.evidence.signature_check import SignatureCheck, voucher_of_signer
from p2pmodel.node.snapshot.evidence.voucher import CACHE, Vouching
from p2pmodel.node.snapshot.reference_search import ReferenceSearch, held_manifest
from p2pmodel.node.snapshot.target import ResolvedTarget, TorrentTarget, read_torrent_file
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import HubCache
from p2pmodel.store.snapshots.snapshot_list import find_commit
from p2pmodel.swarm.engine import EngineSource
from p2pmodel.swarm.magnet import Magnet, parse_magnet
from p2pmodel.swarm.torrents import Metainfo, parse
from p2pmodel.trust.signatures.statement import SignedStatement

Peers = tuple[tuple[str, int], ...]


async def find_reference(
    ref: Reference,
    settings: Settings,
    cache: HubCache,
    origin: Origin | None,
    reporter: Reporter,
    *,
    to_serve: bool = False,
    to_share: bool = False,
    fresh: bool = False,
    http: HttpPool | None = None,
) -> ResolvedTarget:
    """Ask the coordinators and the mirrors, then this cache. Raises the most informative of their errors.

    For a commit that is complete here no request is made, unless its swarm is needed `to_serve` it. `to_share`: without
    a torrent, this node would take part in an assembly. `fresh`: this cache is not asked for a name. `http` are
    connections to share.
    """
    if abbreviates(ref.revision):
        ref = await asyncio.to_thread(_unabbreviated, ref, cache)
    if ref.pinned and not to_serve:
        held = await asyncio.to_thread(held_manifest, ref, cache, whole=True)
        if held is not None:
            return await SignatureCheck(settings, reporter, http).checked(ResolvedTarget(held, None, vouched_by=CACHE))
    vouching, held_names = Vouching(settings, origin), None if fresh else cache
    return await ReferenceSearch(ref, vouching, held_names, reporter, to_share=to_share, http=http).run()


def _unabbreviated(ref: Reference, cache: HubCache) -> Reference:
    """`ref` with the whole commit, if its beginning is that of a commit in the cache. The hub knows such names, too."""
    repo = cache.repo(ref.repo)
    commit = None if repo.resolve(ref.revision) else find_commit(repo, ref.revision)
    return Reference(ref.repo, commit) if commit else ref


async def find_torrent(
    target: TorrentTarget,
    settings: Settings,
    engine: EngineSource,
    origin: Origin | None,
    reporter: Reporter,
    *,
    peers: Peers = (),
    http: HttpPool | None = None,
) -> ResolvedTarget:
    """Read or download the .torrent that `target` names, and find its voucher.

    For a magnet link the engine is started, and gets the torrent from the magnet's trackers and `peers`. Raises
    Contradicted or Unconfirmed for a torrent without a voucher, Untrusted for one without a signature that it needs.
    """
    signatures: tuple[SignedStatement, ...] = target.signatures
    if target.raw is not None:
        metainfo = await asyncio.to_thread(parse, target.raw)
    elif target.is_magnet:
        metainfo = await _from_magnet(target.source, settings, engine, reporter, peers, http=http)
    elif target.is_url:
        coordinators = configured(settings)
        metainfo = await download_torrent(
            target.source,
            stall=settings.origin.read_timeout,
            http=http,
            egress=settings.origin.egress,
            coordinators=coordinators,
            proxies=settings.origin.proxies,
        )
    else:
        raw, signatures = await asyncio.to_thread(read_torrent_file, Path(target.source))
        metainfo = await asyncio.to_thread(parse, raw)
    return await confirmed_torrent(metainfo, signatures, settings, origin, reporter, http=http)


async def confirmed_torrent(
    metainfo: Metainfo,
    signatures: tuple[SignedStatement, ...],
    settings: Settings,
    origin: Origin | None,
    reporter: Reporter,
    *,
    http: HttpPool | None = None,
) -> ResolvedTarget:
    """The target of a torrent with its voucher; `signatures` came with it, unverified. Raises as `find_torrent`."""
    check = SignatureCheck(settings, reporter, http)
    signer = await check.require(metainfo.manifest, metainfo.info_hash, signatures)
    if signer is not None:
        voucher, signatures = voucher_of_signer(signer), (signer.signed,)
    else:
        voucher = await Vouching(settings, origin).voucher(metainfo.manifest)
    trackers = await usable_trackers(metainfo.trackers, settings, reporter)
    return ResolvedTarget(
        metainfo.manifest,
        metainfo,
        vouched_by=voucher,
        trackers=trackers,
        signatures=signatures,
        warned=signer is None,
    )


async def _from_magnet(
    magnet: str,
    settings: Settings,
    engine: EngineSource,
    reporter: Reporter,
    peers: Peers,
    *,
    http: HttpPool | None,
) -> Metainfo:
    wanted, coordinators = parse_magnet(magnet), configured(settings)
    egress = settings.origin.egress | Egress(hosts=frozenset(_host(each.url) for each in coordinators))
    for source in _sources_of(wanted, coordinators):
        try:
            metainfo = await download_torrent(
                source,
                settings.swarm.coordinator_timeout,
                http=http,
                egress=egress,
                named=False,
                coordinators=coordinators,
                proxies=settings.origin.proxies,
            )
        except P2PModelError as error:
            if source in wanted.sources:
                reporter.note(notes.warning("magnet_source_failed", f"the magnet's source failed: {error.what}"))
            continue
        if metainfo.info_hash == wanted.info_hash:
            return metainfo
        reporter.note(
            notes.warning("magnet_source_failed", f"the magnet's source {public_path(source)} has another torrent")
        )
    trackers = await usable_trackers(wanted.trackers, settings, reporter)
    link = wanted.joining(trackers_with(trackers, coordinators))
    raw = await (await engine.started()).fetch_metainfo(link, peers=peers, timeout=settings.swarm.magnet_timeout)
    return parse(raw)


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").lower()


def _sources_of(magnet: Magnet, coordinators: Sequence[Coordinator]) -> list[str]:
    """URLs that may have the .torrent: those in the magnet, then the catalogs of the configured coordinators."""
    catalogs = [coordinator.torrent_url(magnet.info_hash) for coordinator in coordinators]
    return list(dict.fromkeys((*magnet.sources, *catalogs)))


RESOLVE_WITHIN = 3.0
"""Seconds to look up the addresses of a tracker's host."""


async def usable_trackers(trackers: Sequence[str], settings: Settings, reporter: Reporter) -> tuple[str, ...]:
    """The `trackers` that `swarm.foreign_trackers` admits, without those of the coordinators, which are used anyway.

    They come from a .torrent or magnet that the user named. They are announced to, and are never coordinators. A
    torrent's author chooses them, so by default none of them may lie inside the cluster or on this machine.
    """
    foreign = foreign_trackers(tuple(dict.fromkeys(trackers)), configured(settings))
    if settings.swarm.foreign_trackers != "public":
        return foreign if settings.swarm.foreign_trackers == "any" else ()
    admitted = await asyncio.gather(*(_is_admitted(url, settings.origin.egress) for url in foreign))
    for url, usable in zip(foreign, admitted, strict=True):
        if not usable:
            line = f"the torrent's tracker {public_name(url)} is not used: it has no public address"
            hint = "name it with --coordinator, or set swarm.foreign_trackers"
            reporter.note(notes.warning("tracker_not_used", f"{line}; {hint}", tracker=public_name(url)))
    return tuple(url for url, usable in zip(foreign, admitted, strict=True) if usable)


async def _is_admitted(url: str, egress: Egress) -> bool:
    """Whether all addresses of a URL's host are public ones, or admitted by `egress`."""
    try:
        parts = urlsplit(url)
        if egress.names(parts.hostname or ""):
            return True
        async with asyncio.timeout(RESOLVE_WITHIN):
            found = await asyncio.get_running_loop().getaddrinfo(
                parts.hostname or "", parts.port or 80, type=socket.SOCK_STREAM
            )
    except (OSError, ValueError, TimeoutError):
        return False
    return bool(found) and not any(egress.refusal(str(place[4][0])) for place in found)
