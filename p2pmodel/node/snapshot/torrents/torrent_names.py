"""The name of a snapshot that came by its torrent: a torrent names a commit alone, and clients ask for a revision."""

import asyncio
from contextlib import suppress

from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.catalog import find
from p2pmodel.coordinator.client.coordinators import configured
from p2pmodel.core import notes
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import DEFAULT_REVISION, Reference
from p2pmodel.errors import P2PModelError
from p2pmodel.http_pool import HttpPool
from p2pmodel.node.reporter import Reporter
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import HubCache


async def names_of(
    manifest: Manifest,
    settings: Settings,
    cache: HubCache,
    origin: Origin | None,
    reporter: Reporter,
    *,
    http: HttpPool | None = None,
) -> tuple[str, ...]:
    """`main`, if a mirror or a coordinator says that it is this commit, or if none of them answers and the cache has no
    other `main`. A name that means another commit is left alone; a note says so."""
    ref = Reference(manifest.repo, DEFAULT_REVISION)
    commit = await _commit_of(ref, settings, origin, http)
    if commit is None:
        held = await asyncio.to_thread(_held, cache, ref)
        commit = held or manifest.commit
        if held is None:
            text = f"no mirror says which commit {ref} is: in this cache it is the one of the torrent"
            reporter.note(notes.info("name_assumed", text, repo=str(ref.repo), commit=manifest.commit))
    if commit == manifest.commit:
        return (ref.revision,)
    text = f"{ref} is {commit[:8]}, not the torrent's {manifest.commit[:8]}: name that one with --as-ref NAME"
    reporter.note(notes.info("commit_unnamed", text, repo=str(ref.repo), commit=manifest.commit))
    return ()


def _held(cache: HubCache, ref: Reference) -> str | None:
    """The commit of `ref` in the cache. A cache that cannot be read fails the transfer later, with its reason."""
    with suppress(P2PModelError):
        return cache.known(ref.repo).resolve(ref.revision)
    return None


async def _commit_of(ref: Reference, settings: Settings, origin: Origin | None, http: HttpPool | None) -> str | None:
    """The commit of `ref` at the mirrors, else at the coordinators; None if none of them says so in time."""
    if origin is not None:
        with suppress(P2PModelError, TimeoutError):
            async with asyncio.timeout(settings.origin.connect_timeout):
                return (await origin.manifest(ref)).commit
    if not settings.offline:
        with suppress(P2PModelError):
            answer = await find(ref, configured(settings), settings.swarm.coordinator_timeout, http=http)
            return answer.metainfo.manifest.commit if answer.metainfo else None
    return None
