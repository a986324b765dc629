"""Decide what a transfer waits for, and when it gives up."""

import time
from collections.abc import Callable

from p2pmodel.coordinator.client.urls import public_name
from p2pmodel.core.sizes import counted
from p2pmodel.errors import P2PModelError, Unavailable
from p2pmodel.node.fetch.pieces.feed import PieceFeed
from p2pmodel.node.fetch.plan import DownloadPlan
from p2pmodel.swarm.engine import Event, SwarmTorrent, TrackerAnswered, TrackerFailed

QUIET = 2.0
"""Seconds without progress after which the progress states what the transfer waits for."""


class StallClock:
    """Measures how long one attempt has made no progress. Without `may_mirror` no mirror is asked.

    `given_up` is called every second or so. `clock`: seconds, as `time.monotonic`.
    """

    def __init__(
        self,
        plan: DownloadPlan,
        torrent: SwarmTorrent,
        feed: PieceFeed,
        *,
        may_mirror: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan = plan
        self._torrent = torrent
        self._feed = feed
        self._may_mirror = may_mirror
        self.silent_trackers: dict[str, str] = {}
        """By URL, the failure of each tracker that did not answer the last announce."""
        self._clock = clock
        self._last = clock()
        self._connected = clock()
        """When a peer was last seen connected."""

    def heard(self, event: Event) -> None:
        """Take an event about a tracker; others are ignored."""
        match event:
            case TrackerFailed(url, message):
                self.silent_trackers[url] = f"tracker {public_name(url)}: {message}"
            case TrackerAnswered(url):
                self.silent_trackers.pop(url, None)

    def progressed(self) -> None:
        """A piece arrived."""
        self._last = self._clock()

    def reason(self) -> str:
        """What would unblock the transfer; empty while it moves."""
        return self._obstacles() if self._idle() >= QUIET else ""

    def given_up(self, missing: int) -> P2PModelError | None:
        """The error with which to stop waiting for the `missing` pieces; None to wait on."""
        if self._has_peers():
            self._connected = self._clock()
        if not self._is_hopeless(self._idle()):
            return None
        failure = self._feed.failure
        if failure and not isinstance(failure, Unavailable):
            return failure  # a mirror with wrong bytes or without access: that is what to fix
        return Unavailable(
            f"no source for {counted(missing, 'piece')} of {self._plan.metainfo.manifest.repo}: "
            f"waited for {self._obstacles()}",
            hint="start a seeder or a mirror and run the same command: it resumes",
        )

    def _idle(self) -> float:
        return self._clock() - self._last

    def _has_peers(self) -> bool:
        return self._torrent.status().peers > 0

    def _is_hopeless(self, idle: float) -> bool:
        """Whether `idle` seconds are enough: mirrors that are being asked have their own bound, `origin.patience`."""
        if self._feed.failure and not self._has_peers():
            # From the last peer on: after a long wait beside one that had nothing, another may be about to connect.
            return min(idle, self._clock() - self._connected) > self._plan.peer_timeout
        idle = min(idle, self._clock() - self._feed.asks_from)  # before that only peers were asked
        return idle > self._plan.stall_timeout and not self._feed.active

    def _obstacles(self) -> str:
        has_peers = self._has_peers()
        reasons = ["pieces from peers" if has_peers else "peers (none is connected)"]
        if not has_peers:
            reasons += self.silent_trackers.values()
        if not self._may_mirror:
            reasons.append("mirrors may not be asked (HF_HUB_OFFLINE)")
        elif self._feed.over_budget:
            reasons.append("the swarm has taken from mirrors what swarm.origin_budget allows")
        elif self._feed.failure:
            reasons.append(self._feed.failure.what)
        elif self._feed.active:
            reasons.append("the mirrors")
        return "; ".join(reasons)
