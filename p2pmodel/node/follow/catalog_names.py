"""The names in the coordinators' catalogs that the patterns of a follow list match."""

import asyncio
import fnmatch
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from p2pmodel.config.sections.follow import FollowSettings
from p2pmodel.coordinator.client.catalog import list_torrents
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.core.content.names import Reference, RepoId, is_commit, is_range, reference
from p2pmodel.errors import InvalidInput, NotFound, P2PModelError

MOST = 64
"""References of one list; further ones are left out."""


@dataclass(frozen=True, slots=True)
class CatalogNames:
    """A repository with the revision names and aliases of its torrents."""

    repo: RepoId
    names: frozenset[str]


async def catalog_names(coordinators: Sequence[Coordinator], timeout: float) -> list[CatalogNames]:
    """The names at all coordinators that answer. Raises InvalidInput without a coordinator, else the error of the first
    one if none answers."""
    if not coordinators:
        raise InvalidInput("a pattern is matched against a catalog", hint="configure a coordinator, or write the name")
    answers = await asyncio.gather(*(list_torrents(each, timeout) for each in coordinators), return_exceptions=True)
    listed = [each for each in answers if not isinstance(each, BaseException)]
    failures = [each for each in answers if isinstance(each, BaseException)]
    for failure in failures:
        if not listed or not isinstance(failure, P2PModelError):
            raise failure
    return [names for torrents in listed for torrent in torrents if (names := _names(torrent)) is not None]


def matching(wanted: FollowSettings, listed: Iterable[CatalogNames]) -> list[Reference]:
    """What the patterns of `wanted` match, by name, at most MOST. Raises NotFound if nothing does.

    A range of versions or a commit is a revision of every repository that matches.
    """
    found = set()
    for each in listed:
        if fnmatch.fnmatchcase(each.repo.folded, wanted.repo.lower()):
            revision = wanted.revision
            names = {revision} if is_range(revision) or is_commit(revision) else each.names
            found |= {reference(each.repo, name) for name in names if fnmatch.fnmatchcase(name, revision)}
    if not found:
        raise NotFound(f"no name in the catalogs matches {wanted.name}")
    return sorted(found)[:MOST]


def _names(torrent: dict[str, Any]) -> CatalogNames | None:
    """The names of one torrent; None for what is none of a repository."""
    with suppress(InvalidInput, KeyError, TypeError):
        repo = RepoId(str(torrent["repo"]))
        names = [str(name) for name in (*torrent["revisions"], *torrent.get("aliases", ()))]
        return CatalogNames(repo, frozenset(name for name in names if _is_name(repo, name)))
    return None


def _is_name(repo: RepoId, name: str) -> bool:
    try:
        return bool(Reference(repo, name))
    except InvalidInput:
        return False
