"""What a transfer waits for, and when that is given up."""

import time
from collections.abc import Callable

from p2pmodel.errors import P2PModelError, Unavailable
from p2pmodel.node.fetch.piece_feed import PieceFeed
from p2pmodel.node.fetch.plan import DownloadPlan

QUIET = 2.0
"""Seconds without progress after which a transfer says what it waits for."""


class StallClock:
    """Who has not helped a transfer. `peers` tells how many are connected; without `may_mirror` no mirror is asked."""

    def __init__(self, plan: DownloadPlan, *, peers: Callable[[], int], may_mirror: bool) -> None:
        self._plan = plan
        self._peers = peers
        self._may_mirror = may_mirror
        self.feed: PieceFeed | None = None
        self.silent_trackers: dict[str, str] = {}
        """By URL, what is wrong with those that did not answer when last asked."""
        self._last = time.monotonic()

    def progressed(self) -> None:
        """Something has come."""
        self._last = time.monotonic()

    def reason(self) -> str:
        """What would unblock the transfer; empty while it moves."""
        return self._obstacles() if self._idle() >= QUIET else ""

    def given_up(self, missing: int) -> P2PModelError | None:
        """Why the `missing` pieces are not waited for any longer, if they are not."""
        if not self._is_hopeless(self._idle()):
            return None
        failure = self.feed.failure if self.feed else None
        if failure and not isinstance(failure, Unavailable):
            return failure  # a mirror that lies, or wants a token: that is what to mend
        return Unavailable(
            f"{missing} pieces of {self._plan.metainfo.manifest.repo} are nowhere to be had: "
            f"waited for {self._obstacles()}",
            hint="start a seeder or a mirror and run the same command: it resumes",
        )

    def _idle(self) -> float:
        return time.monotonic() - self._last

    def _is_hopeless(self, idle: float) -> bool:
        """Whether `idle` seconds are enough: mirrors that are being asked have their own bound, `origin.patience`."""
        if self.feed and self.feed.failure and not self._peers():
            return idle > self._plan.peer_timeout
        if self.feed:
            idle = min(idle, time.monotonic() - self.feed.met_at)  # before that nobody else was asked
        return idle > self._plan.stall_timeout and not (self.feed and self.feed.active)

    def _obstacles(self) -> str:
        reasons = ["pieces from peers" if self._peers() else "peers (none is connected)"]
        if not self._peers():
            reasons += self.silent_trackers.values()
        if not self._may_mirror:
            reasons.append("mirrors may not be asked (HF_HUB_OFFLINE)")
        elif self.feed and self.feed.over_budget:
            reasons.append("mirrors may not be asked: the swarm has taken what swarm.origin_budget allows")
        elif self.feed and self.feed.failure:
            reasons.append(self.feed.failure.what)
        elif self.feed and self.feed.active:
            reasons.append("the mirrors")
        return "; ".join(reasons)
