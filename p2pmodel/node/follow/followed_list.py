"""One follow list: the names in catalogs that its patterns match, where its revisions lead, and when they are looked up
next. The list is pure: the time is passed in.

A list is looked up when the node starts, when its window opens, and then at its interval, in the window alone. After a
failure the pauses grow.
"""

import asyncio
import fnmatch
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from p2pmodel.config.sections.daemon import FollowSettings
from p2pmodel.coordinator.client.catalog import list_torrents
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.core.backoff import Backoff
from p2pmodel.core.content.manifest import Selection
from p2pmodel.core.content.names import Reference, RepoId, is_commit, is_range, reference
from p2pmodel.errors import InvalidInput, NotFound, P2PModelError
from p2pmodel.store.state.revisions import FollowedCommit

MOST_REFERENCES = 64
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
        raise InvalidInput(
            "a pattern needs the catalog of a coordinator", hint="configure a coordinator, or write the name"
        )
    answers = await asyncio.gather(*(list_torrents(each, timeout) for each in coordinators), return_exceptions=True)
    listed = [each for each in answers if not isinstance(each, BaseException)]
    failures = [each for each in answers if isinstance(each, BaseException)]
    for failure in failures:
        if not listed or not isinstance(failure, P2PModelError):
            raise failure
    return [names for torrents in listed for torrent in torrents if (names := _names(torrent)) is not None]


def matching(wanted: FollowSettings, listed: Iterable[CatalogNames]) -> list[Reference]:
    """What the patterns of `wanted` match, by name, at most MOST_REFERENCES. Raises NotFound if nothing does.

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
    return sorted(found)[:MOST_REFERENCES]


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


FIRST_PAUSE = 60.0
"""Seconds from a look that failed to the next one; doubles with each further failure."""
LONGEST_PAUSE = 3600.0
SPREAD = 60.0
"""Seconds after the begin of a window within which nodes look: all at once would be a burst for mirrors."""
SHARE_OF_WINDOW = 0.1
"""Most of the window that the spread may take."""
JITTER = 0.1
"""Part of the interval by which nodes with the same list drift apart."""


class FollowedList:
    """The state of the list `settings`; `known`: the commits of an earlier run. `dice`: a number from 0 to below 1."""

    def __init__(self, settings: FollowSettings, known: Iterable[FollowedCommit] = ()) -> None:
        self.settings = settings
        self.hours = settings.hours
        self.selection = Selection(settings.include, settings.exclude)
        self.commits = tuple(known)
        self.checked: float | None = None
        """The last look that succeeded."""
        self.error = ""
        """Why the last look failed."""
        self.next_look = 0.0
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self._was_open: bool | None = None

    def observe(self, now: float, dice: float) -> bool:
        """Whether its window is open. When it has just opened, the next look is soon."""
        is_open = self.hours.is_open(now)
        if is_open and self._was_open is False:
            end = self.hours.next_change(now)
            spread = SPREAD if end is None else min(SPREAD, SHARE_OF_WINDOW * (end - now))
            self.next_look = now + dice * spread
            self._backoff.succeeded()
        self._was_open = is_open
        return is_open

    def is_due(self, now: float) -> bool:
        """Whether to look now. A clock that was set back delays no look."""
        longest = max(LONGEST_PAUSE, self.settings.interval) * (1 + JITTER)
        return bool(self._was_open) and (now >= self.next_look or self.next_look - now > longest)

    def succeeded(self, now: float, found: Iterable[FollowedCommit], dice: float) -> frozenset[str]:
        """The revisions lead to `found`. Returns the transfers of commits that it led to before, and not now."""
        self.checked, self.error = now, ""
        self._backoff.succeeded()
        self.next_look = now + self.settings.interval * (1 + JITTER * (2 * dice - 1))
        return self._lead_to(found)

    def failed(self, now: float, found: Iterable[FollowedCommit], error: str) -> frozenset[str]:
        """As `succeeded`, where some revisions could not be looked up: these lead to the commits of before."""
        self.error = error
        self.next_look = now + self._backoff.failed()
        latest = {(each.repo, each.revision): each for each in (*self.commits, *found)}
        return self._lead_to(latest.values())

    def _lead_to(self, found: Iterable[FollowedCommit]) -> frozenset[str]:
        before = {each.transfer for each in self.commits}
        self.commits = tuple(found)
        return frozenset(before - {each.transfer for each in self.commits})
