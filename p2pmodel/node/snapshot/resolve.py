"""What a fetch target stands for: who has this snapshot, and under which torrent."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.catalog import find
from p2pmodel.coordinator.client.torrent_download import download_torrent, public_path
from p2pmodel.coordinator.client.urls import torrent_url
from p2pmodel.core.manifest import Manifest
from p2pmodel.core.names import Reference, printable
from p2pmodel.errors import InvalidInput, P2PModelError, Unavailable
from p2pmodel.node.reporter import Reporter
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import HubCache
from p2pmodel.swarm.engine import Engine
from p2pmodel.swarm.magnet import Magnet, parse_magnet
from p2pmodel.swarm.torrent_file import read_torrent
from p2pmodel.swarm.torrents import Metainfo, parse

_MAGNET = "magnet:"


@dataclass(frozen=True, slots=True)
class TorrentTarget:
    """A snapshot named by its torrent: a path, an http(s) URL of a .torrent, or a magnet link."""

    source: str


Peers = tuple[tuple[str, int], ...]
Target = Reference | TorrentTarget
StartEngine = Callable[[], Awaitable[Engine]]


@dataclass(frozen=True, slots=True)
class ResolvedTarget:
    """The snapshot to bring here, its torrent if somebody has one, and the refs that will point at it.

    `coordinators` are those that answered and have no torrent: they may take part in an assembly.
    """

    manifest: Manifest
    metainfo: Metainfo | None
    refs: tuple[str, ...] = ()
    coordinators: tuple[str, ...] = ()


def parse_target(text: str, revision: str | None = None) -> Target:
    """`REPO[@REV]` or `hf://...`, a .torrent file, an http(s) URL or a magnet. Raises InvalidInput."""
    if text.lower().startswith((_MAGNET, "http://", "https://")) or text.endswith(".torrent"):
        if revision is not None:
            raise InvalidInput("--revision goes with a repository, not with a torrent")
        _check_source(text)
        return TorrentTarget(text)
    return Reference.parse(text, revision=revision)


def _check_source(text: str) -> None:
    if text.lower().startswith(_MAGNET):
        parse_magnet(text)
        return
    try:
        named = "://" not in text or (urlsplit(text).hostname and urlsplit(text).port != 0)
    except ValueError:
        named = False
    if not named:
        raise InvalidInput(f"'{printable(text)}' is not a URL", hint="write http://HOST/NAME.torrent")


async def find_reference(
    ref: Reference,
    settings: Settings,
    cache: HubCache,
    origin: Origin | None,
    reporter: Reporter,
    *,
    to_serve: bool = False,
    to_share: bool = False,
) -> ResolvedTarget:
    """Ask the coordinators, then the mirrors, then this cache. Raises the most telling of their errors.

    Nobody is asked about a commit that is complete here, unless its swarm is wanted `to_serve` it. `to_share`: without
    a torrent it will be pulled together with others.
    """
    if ref.pinned and not to_serve:
        held = await asyncio.to_thread(_held, ref, cache, whole=True)
        if held is not None:
            return ResolvedTarget(held, None)
    refs = () if ref.pinned else (ref.revision,)
    metainfo, lacking = await from_coordinators(ref, settings, reporter, to_share=to_share)
    if metainfo is not None:
        return ResolvedTarget(metainfo.manifest, metainfo, refs)
    return ResolvedTarget(await from_mirrors_or_cache(ref, origin, cache, reporter), None, refs, lacking)


async def from_mirrors_or_cache(ref: Reference, origin: Origin | None, cache: HubCache, reporter: Reporter) -> Manifest:
    """What `ref` is at the mirrors; when none answers (or none may be asked), what it was when it came here."""
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
        reporter.note(f"{error}; using {ref} as it is in this cache ({held.commit[:8]})")
        return held


async def find_torrent(
    target: TorrentTarget, settings: Settings, engine: StartEngine, reporter: Reporter, *, peers: Peers = ()
) -> ResolvedTarget:
    """Read or download the .torrent that `target` names.

    A magnet is joined with `engine`, which is started only then, and finds it by its trackers and `peers`.
    """
    if target.source.lower().startswith(_MAGNET):
        metainfo = await _from_magnet(target.source, settings, engine, reporter, peers)
    elif "://" in target.source:
        metainfo = await download_torrent(target.source, stall=settings.origin.read_timeout)
    else:
        metainfo = await asyncio.to_thread(lambda: parse(read_torrent(Path(target.source))))
    return ResolvedTarget(metainfo.manifest, metainfo)


def _held(ref: Reference, cache: HubCache, *, whole: bool = False) -> Manifest | None:
    """What this cache says that `ref` is; if `whole`, only if all its blobs are here."""
    repo = cache.repo(ref.repo)
    commit = repo.resolve(ref.revision)
    manifest = repo.manifest(commit) if commit else None
    return None if manifest is None or (whole and repo.missing(manifest.files)) else manifest


async def from_coordinators(
    ref: Reference, settings: Settings, reporter: Reporter, *, to_share: bool
) -> tuple[Metainfo | None, tuple[str, ...]]:
    """The torrent; without one, the coordinators that answered."""
    if not settings.coordinators:
        return None, ()
    answer = await find(ref, settings.coordinators, settings.swarm.coordinator_timeout)
    if answer.metainfo is not None:
        return answer.metainfo, ()
    if settings.offline:
        instead = "using this cache alone"
    elif to_share and answer.lacking:
        instead = "downloading from the mirrors, together with other nodes"
    else:
        instead = "downloading from the mirrors alone"
    reporter.note(f"no coordinator has {ref} ({'; '.join(answer.reasons)}): {instead}")
    return None, answer.lacking


async def _from_magnet(
    magnet: str, settings: Settings, engine: StartEngine, reporter: Reporter, peers: Peers
) -> Metainfo:
    wanted = parse_magnet(magnet)
    for source in _sources_of(wanted, settings):
        try:
            metainfo = await download_torrent(source, settings.swarm.coordinator_timeout)
        except P2PModelError as error:
            if source in wanted.sources:
                reporter.note(f"the magnet's source does not help: {error.what}")
            continue
        if metainfo.info_hash == wanted.info_hash:
            return metainfo
        reporter.note(f"the magnet's source {public_path(source)} has another torrent")
    raw = await (await engine()).fetch_metainfo(magnet, peers=peers, timeout=settings.swarm.magnet_timeout)
    return parse(raw)


def _sources_of(magnet: Magnet, settings: Settings) -> list[str]:
    """URLs that may have the .torrent: those the magnet names, then the catalogs of the coordinators it may come from.
    A coordinator serves its tracker and its catalog below one URL."""
    announced = [url.removesuffix("/announce") for url in magnet.trackers if url.endswith("/announce")]
    bases = [url for url in (*settings.coordinators, *announced) if url.startswith(("http://", "https://"))]
    catalogs = [torrent_url(base, magnet.info_hash) for base in bases]
    return list(dict.fromkeys((*magnet.sources, *catalogs)))
