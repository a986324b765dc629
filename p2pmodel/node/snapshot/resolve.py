"""Resolve a fetch target: the snapshot, and its torrent if a coordinator, a file or a magnet has one."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.catalog import find
from p2pmodel.coordinator.client.torrent_download import download_torrent, public_path
from p2pmodel.coordinator.client.urls import torrent_url
from p2pmodel.core import notes
from p2pmodel.core.egress import Egress
from p2pmodel.core.manifest import Manifest
from p2pmodel.core.names import Reference
from p2pmodel.errors import P2PModelError, Unavailable
from p2pmodel.http_pool import HttpPool
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.target import TorrentTarget
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import HubCache
from p2pmodel.swarm.engine import EngineSource
from p2pmodel.swarm.magnet import Magnet, parse_magnet
from p2pmodel.swarm.torrents import Metainfo, parse, read_torrent

Peers = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class ResolvedTarget:
    """A snapshot, its torrent if one was found, and the refs that will point at it.

    `coordinators` answered and have no torrent: they may take part in an assembly.
    """

    manifest: Manifest
    metainfo: Metainfo | None
    refs: tuple[str, ...] = ()
    coordinators: tuple[str, ...] = ()


async def find_reference(
    ref: Reference,
    settings: Settings,
    cache: HubCache,
    origin: Origin | None,
    reporter: Reporter,
    *,
    to_serve: bool = False,
    to_share: bool = False,
    http: HttpPool | None = None,
) -> ResolvedTarget:
    """Ask the coordinators, then the mirrors, then this cache. Raises the most informative of their errors.

    For a commit that is complete here no request is made, unless its swarm is needed `to_serve` it. `to_share`: without
    a torrent, this node would take part in an assembly. `http` are connections to share.
    """
    if ref.pinned and not to_serve:
        held = await asyncio.to_thread(_held, ref, cache, whole=True)
        if held is not None:
            return ResolvedTarget(held, None)
    refs = () if ref.pinned else (ref.revision,)
    metainfo, lacking = await from_coordinators(ref, settings, reporter, to_share=to_share, http=http)
    if metainfo is not None:
        return ResolvedTarget(metainfo.manifest, metainfo, refs)
    return ResolvedTarget(await from_mirrors_or_cache(ref, origin, cache, reporter), None, refs, lacking)


async def from_mirrors_or_cache(ref: Reference, origin: Origin | None, cache: HubCache, reporter: Reporter) -> Manifest:
    """The manifest of `ref` at the mirrors; if none answers (or none may be asked), that of the cached revision."""
    held = await asyncio.to_thread(_held, ref, cache)
    if origin is None:
        if held is None:
            raise Unavailable(f"{ref} is not in this cache, and no mirror may be asked", hint="unset HF_HUB_OFFLINE")
        return held
    try:
        return await origin.manifest(ref)
    except Unavailable as error:
        if held is None:
            raise
        reporter.note(
            notes.warning(
                "mirrors_unavailable",
                f"{error}; using {ref} as it is in this cache ({held.commit[:8]})",
                repo=str(ref.repo),
                commit=held.commit,
            )
        )
        return held


async def find_torrent(
    target: TorrentTarget,
    settings: Settings,
    engine: EngineSource,
    reporter: Reporter,
    *,
    peers: Peers = (),
    http: HttpPool | None = None,
) -> ResolvedTarget:
    """Read or download the .torrent that `target` names.

    For a magnet link the engine is started, and gets the torrent from the magnet's trackers and `peers`.
    """
    if target.is_magnet:
        metainfo = await _from_magnet(target.source, settings, engine, reporter, peers, http=http)
    elif target.is_url:
        metainfo = await download_torrent(
            target.source, stall=settings.origin.read_timeout, http=http, egress=settings.origin.egress
        )
    else:
        metainfo = await asyncio.to_thread(lambda: parse(read_torrent(Path(target.source))))
    return ResolvedTarget(metainfo.manifest, metainfo)


def _held(ref: Reference, cache: HubCache, *, whole: bool = False) -> Manifest | None:
    """The cached manifest of `ref`; if `whole`, only if all its blobs are here and none is damaged."""
    repo = cache.repo(ref.repo)
    commit = repo.resolve(ref.revision)
    manifest = repo.manifest(commit) if commit else None
    return None if manifest is None or (whole and repo.lacking(manifest.files)) else manifest


async def from_coordinators(
    ref: Reference, settings: Settings, reporter: Reporter, *, to_share: bool, http: HttpPool | None = None
) -> tuple[Metainfo | None, tuple[str, ...]]:
    """The torrent; without one, the coordinators that answered."""
    if not settings.coordinators:
        return None, ()
    answer = await find(ref, settings.coordinators, settings.swarm.coordinator_timeout, http=http)
    if answer.metainfo is not None:
        return answer.metainfo, ()
    if settings.offline:
        instead = "using this cache alone"
    elif to_share and answer.lacking:
        instead = "downloading from the mirrors, together with other nodes"
    else:
        instead = "downloading from the mirrors alone"
    reporter.note(
        notes.warning(
            "torrent_not_found",
            f"no coordinator has {ref} ({'; '.join(answer.reasons)}): {instead}",
            repo=str(ref.repo),
            revision=ref.revision,
        )
    )
    return None, answer.lacking


async def _from_magnet(
    magnet: str,
    settings: Settings,
    engine: EngineSource,
    reporter: Reporter,
    peers: Peers,
    *,
    http: HttpPool | None,
) -> Metainfo:
    wanted = parse_magnet(magnet)
    egress = settings.origin.egress | Egress(hosts=frozenset(map(_host, settings.coordinators)))
    for source in _sources_of(wanted, settings):
        try:
            metainfo = await download_torrent(
                source, settings.swarm.coordinator_timeout, http=http, egress=egress, named=False
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
    raw = await (await engine.started()).fetch_metainfo(magnet, peers=peers, timeout=settings.swarm.magnet_timeout)
    return parse(raw)


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").lower()


def _sources_of(magnet: Magnet, settings: Settings) -> list[str]:
    """URLs that may have the .torrent: those in the magnet, then the catalogs of its possible coordinators.

    A coordinator serves its tracker and its catalog below one URL.
    """
    announced = [url.removesuffix("/announce") for url in magnet.trackers if url.endswith("/announce")]
    bases = [url for url in (*settings.coordinators, *announced) if url.startswith(("http://", "https://"))]
    catalogs = [torrent_url(base, magnet.info_hash) for base in bases]
    return list(dict.fromkeys((*magnet.sources, *catalogs)))
