"""State of one torrent from its alerts, and delivery of events and replies."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from p2pmodel.core.pace import CounterRate
from p2pmodel.swarm import engine
from p2pmodel.swarm.events import EventStream
from p2pmodel.swarm.libtorrent import alerts
from p2pmodel.swarm.libtorrent.replies import PendingReplies

SHADOW_SECONDS = 3.0
"""Seconds after a ban in which pieces in flight may cause the ban of an honest peer."""


class Bans:
    """Weighted bans of one torrent. `clock` returns seconds.

    libtorrent bans the sender of a piece that fails. If two peers sent one piece together, it sometimes bans the honest
    one alone: about one ban in thirty, mostly soon after a right one. Every banned peer can reconnect from another port
    a few seconds later, and only a guilty one is banned repeatedly. So a ban soon after the ban of another peer weighs
    less. An address counts as guilty unless another one has twice its weight.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._weight: dict[str, int] = {}
        self._last: dict[str, float] = {}

    @property
    def addresses(self) -> frozenset[str]:
        """The addresses that count as guilty now."""
        most = max(self._weight.values(), default=0)
        return frozenset(address for address, weight in self._weight.items() if 2 * weight > most)

    def add(self, address: str) -> bool:
        """Add a ban; whether `address` counts as guilty now, and did not before."""
        before = self.addresses
        now = self._clock()
        shadowed = any(now - last < SHADOW_SECONDS for other, last in self._last.items() if other != address)
        self._weight[address] = self._weight.get(address, 0) + (1 if shadowed else 2)
        self._last[address] = now
        return address in self.addresses - before


class Ask(Enum):
    """Keys of requests about the whole torrent."""

    ECHO = auto()
    FLUSH = auto()
    REMOVE = auto()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Key of the hash check of a fed piece."""

    piece: int


_NOTHING = alerts.Ticked(frozenset(), 0, 0, 0, 0, 0)


class TorrentState:
    """Converts notices into state, events and replies. No I/O. `wanted`: pieces to download; `padded`: those of all
    that end with padding."""

    def __init__(
        self,
        have: frozenset[int],
        piece_count: int,
        *,
        wanted: frozenset[int] = frozenset(),
        padded: frozenset[int] = frozenset(),
    ) -> None:
        self._wanted_unpadded, self._wanted_padded = wanted - padded, wanted & padded
        self.events = EventStream()
        self.replies = PendingReplies()
        self.have = set(have)
        self.durable = set(have)
        """Pieces on disk: those of the start and of every flush."""
        self.failure: engine.DiskFailed | None = None
        """The first disk failure: one event for many alerts."""
        self.all_answered = asyncio.Event()
        """Set when every tracker has answered our `stopped` event."""
        self.all_answered.set()
        self._unanswered: set[str] = set()
        self._checked = False
        self._tick = _NOTHING
        # libtorrent's own rates need ten seconds to come near the true one.
        self._down, self._up = CounterRate(), CounterRate()
        self._availability = (0,) * piece_count
        self._bans = Bans(asyncio.get_running_loop().time)
        self._handlers: Mapping[type, Callable[[Any], None]] = {
            alerts.Checked: self._on_checked,
            engine.PieceVerified: self._on_verified,
            engine.PieceRejected: self._on_rejected,
            engine.PeerBanned: self._on_banned,
            engine.PeerUnreachable: self.events.put,
            engine.DiskFailed: self._on_disk_failed,
            engine.TrackerAnswered: self._on_tracker,
            engine.TrackerFailed: self._on_tracker,
            engine.TrackerWarned: self.events.put,
            alerts.Leaving: self._on_leaving,
            alerts.Ticked: self._on_ticked,
            alerts.Available: self._on_available,
            alerts.Flushed: lambda _: self.replies.answer(Ask.FLUSH),
            alerts.Echo: lambda _: self.replies.answer(Ask.ECHO),
            alerts.TorrentRemoved: lambda _: self.replies.answer(Ask.REMOVE),
        }

    @property
    def downloading(self) -> bool:
        """Whether it has peers and misses pieces."""
        return self._tick.peers > 0 and len(self.have) < len(self._availability)

    @property
    def at_padded_pieces(self) -> bool:
        """Whether it misses pieces, and each one that it misses ends with padding."""
        if len(self.have) == len(self._availability):
            return False
        return self._wanted_unpadded <= self.have and not self._wanted_padded <= self.have

    def status(self) -> engine.SwarmStatus:
        """The state as SwarmStatus."""
        tick = self._tick
        return engine.SwarmStatus(
            have=frozenset(self.have),
            availability=self._availability,
            peers=tick.peers,
            seeds=tick.seeds,
            downloaded=tick.downloaded,
            uploaded=tick.uploaded,
            wasted=tick.wasted,
            download_rate=self._down.value(),
            upload_rate=self._up.value(),
            banned=self._bans.addresses,
        )

    @property
    def rates(self) -> engine.Rates:
        """The rates of `status`, without a copy of the pieces."""
        return engine.Rates(self._up.value(), self._down.value())

    def flushed(self, pieces: frozenset[int]) -> None:
        """A flush ended without a failure; `pieces` were verified before it."""
        self.durable |= pieces & self.have

    def raise_failure(self) -> None:
        """Raise NoSpace or LocalResource after a disk failure."""
        if self.failure:
            raise self.failure.error()

    def notice(self, notice: alerts.Notice) -> None:
        """Apply one notice."""
        handler = self._handlers.get(type(notice))
        if handler:
            handler(notice)

    def _on_checked(self, _: alerts.Checked) -> None:
        self._checked = True

    def _on_verified(self, event: engine.PieceVerified) -> None:
        if event.piece not in self.have:
            self.have.add(event.piece)
            self.events.put(event)
        self.replies.answer(Verdict(event.piece), True)

    def _on_rejected(self, event: engine.PieceRejected) -> None:
        self.events.put(event)
        self.replies.answer(Verdict(event.piece), False)

    def _on_banned(self, event: engine.PeerBanned) -> None:
        if self._bans.add(event.address):
            self.events.put(event)

    def _on_disk_failed(self, event: engine.DiskFailed) -> None:
        if self.failure:
            return
        self.failure = event
        self.events.put(event)
        self.replies.refuse_all(event.error(), kind=Verdict)

    def _on_tracker(self, event: engine.TrackerAnswered | engine.TrackerFailed) -> None:
        self._unanswered.discard(event.url)
        if not self._unanswered:
            self.all_answered.set()
        self.events.put(event)

    def _on_leaving(self, notice: alerts.Leaving) -> None:
        self._unanswered.add(notice.url)
        self.all_answered.clear()

    def _on_ticked(self, tick: alerts.Ticked) -> None:
        self._tick = tick
        if not tick.peers:  # it is asked for only while there are peers, and the last answer would stay
            self._availability = (0,) * len(self._availability)
        self._down.read(tick.downloaded)
        self._up.read(tick.uploaded)
        if not self._checked:  # the engine has not accepted `have` yet
            return
        for piece in sorted(tick.have - self.have):  # their alerts were lost: the queue was full
            self._on_verified(engine.PieceVerified(piece))
        self.have &= tick.have

    def _on_available(self, notice: alerts.Available) -> None:
        if notice.peers:
            self._availability = notice.peers
