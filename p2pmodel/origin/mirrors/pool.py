"""The mirrors of one origin, and the pulls that share their connections."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from p2pmodel.config.sections.mirrors import OriginSettings
from p2pmodel.core.content.names import RepoId
from p2pmodel.core.notes import Note
from p2pmodel.core.pace import Pace
from p2pmodel.origin.clock import Clock
from p2pmodel.origin.mirrors.health import ordered
from p2pmodel.origin.mirrors.mirror import Mirror
from p2pmodel.origin.requests import RangeRequests

_EVERY = 15.0


class MirrorNotes:
    """Drops a note if one with the same key was passed on in the last `_EVERY` seconds."""

    def __init__(self, on_note: Callable[[str], None], clock: Clock) -> None:
        self._on_note = on_note
        self._clock = clock
        self._last: dict[tuple[str, ...], float] = {}

    def add(self, line: str, *key: str) -> None:
        """Pass `line` on. Notes about the same thing share a `key`, even if their details differ."""
        now = self._clock.now()
        self._last = {k: when for k, when in self._last.items() if now - when < _EVERY}
        if key not in self._last:
            self._last[key] = now
            self._on_note(Note.of(line))


class Backlog(Protocol):
    """The missing bytes of one pull; `download.segments.SegmentBoard` implements it."""

    @property
    def left(self) -> int:
        """Bytes still to come."""

    @property
    def waiting(self) -> int:
        """Bytes without a request."""


class MirrorPool:
    """What all jobs of an origin share: mirrors, connections, notes, and the backlogs of the pulls in progress."""

    def __init__(
        self,
        mirrors: Sequence[Mirror],
        requests: RangeRequests,
        settings: OriginSettings,
        clock: Clock,
        notes: MirrorNotes,
        *,
        pace: Pace | None = None,
    ) -> None:
        self._pace = pace or Pace()
        self.mirrors = tuple(mirrors)
        self.requests = requests
        self.settings = settings
        self.clock = clock
        self.notes = notes
        self._pulls: dict[Backlog, asyncio.Event] = {}
        """Each with the event that wakes its pull when a connection becomes free."""

    def of(self, repo: RepoId) -> list[Mirror]:
        """The mirrors at which `repo` is looked for, in priority order."""
        return serving(self.mirrors, repo)

    def named(self, name: str) -> Mirror:
        """The mirror `name`."""
        return next(mirror for mirror in self.mirrors if mirror.name == name)

    def preferred(self) -> list[Mirror]:
        """All mirrors, those to ask first at the front."""
        return in_order(self.mirrors, self.clock.now())

    @contextmanager
    def pulling(self, pull: Backlog) -> Iterator[asyncio.Event]:
        """While the context lasts, `pull` shares the connections; the event reports a free one."""
        freed = self._pulls[pull] = asyncio.Event()
        try:
            yield freed
        finally:
            del self._pulls[pull]
            self.wake()

    def wake(self) -> None:
        """A connection became free."""
        for event in self._pulls.values():
            event.set()

    def backlog(self) -> int:
        """Bytes that the pulls in progress still miss."""
        return sum(pull.left for pull in self._pulls)

    def waiting(self) -> int:
        """How many pulls have bytes that no request fetches yet."""
        return sum(pull.waiting > 0 for pull in self._pulls)

    def share(self, mirror: Mirror) -> int:
        """How many connections to `mirror` one pull may use while others wait for one."""
        return -(-mirror.settings.max_connections // max(1, self.waiting()))

    def has_room(self, mirror: Mirror) -> bool:
        """Whether the rate limits leave something for one more request of a pull to `mirror`."""
        return mirror.busy < mirror.pace.readers and sum(m.busy for m in self.mirrors) < self._pace.readers

    def rates(self) -> dict[str, float | None]:
        """Expected bytes a second, by mirror name."""
        now = self.clock.now()
        return {m.name: m.rate(now) for m in self.mirrors}


def serving(mirrors: Sequence[Mirror], repo: RepoId) -> list[Mirror]:
    """The `mirrors` at which `repo` is looked for."""
    return [mirror for mirror in mirrors if mirror.settings.serves(repo)]


def in_order(mirrors: Sequence[Mirror], now: float) -> list[Mirror]:
    """`mirrors` in the order of `health.ordered`."""
    by_name = {mirror.name: mirror for mirror in mirrors}
    return [by_name[health.name] for health in ordered((mirror.health for mirror in mirrors), now)]
