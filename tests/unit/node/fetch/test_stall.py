"""When a transfer gives up."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

from p2pmodel.errors import Unavailable
from p2pmodel.node.fetch.pieces.feed import PieceFeed
from p2pmodel.node.fetch.plan import DownloadPlan
from p2pmodel.node.fetch.stall import StallClock
from p2pmodel.swarm.engine import SwarmTorrent


@dataclass
class Waiting:
    """A torrent without progress, and mirrors that have failed; `now` in seconds."""

    now: float = 0.0
    peers: int = 0

    def clock(self, *, peer_timeout: float) -> StallClock:
        manifest = SimpleNamespace(repo="org/m")
        plan = SimpleNamespace(
            peer_timeout=peer_timeout, stall_timeout=100.0, metainfo=SimpleNamespace(manifest=manifest)
        )
        feed = SimpleNamespace(failure=Unavailable("no mirror"), asks_from=0.0, active=False, over_budget=False)
        torrent = SimpleNamespace(status=lambda: SimpleNamespace(peers=self.peers))
        return StallClock(
            cast("DownloadPlan", plan),
            cast("SwarmTorrent", torrent),
            cast("PieceFeed", feed),
            may_mirror=True,
            clock=lambda: self.now,
        )


def test_without_a_peer_it_gives_up_after_the_peer_timeout() -> None:
    waiting = Waiting()
    clock = waiting.clock(peer_timeout=10)
    waiting.now = 9
    assert clock.given_up(1) is None
    waiting.now = 11
    assert isinstance(clock.given_up(1), Unavailable)


def test_after_the_last_peer_has_left_another_has_the_peer_timeout_to_connect() -> None:
    waiting = Waiting(peers=1)
    clock = waiting.clock(peer_timeout=10)
    for waiting.now in range(50):  # it is connected, and has nothing
        assert clock.given_up(1) is None
    waiting.peers = 0
    for waiting.now in range(50, 59):
        assert clock.given_up(1) is None
    waiting.now = 60
    assert clock.given_up(1) is not None
