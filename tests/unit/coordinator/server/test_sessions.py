"""Sessions of peers: how often each of many peers sends its state."""

import pytest

from p2pmodel.coordinator.leases.messages import MOST_HEARTBEATS
from p2pmodel.coordinator.server.sessions import PEERS_A_HEARTBEAT, SHORTER_BELOW, heartbeats_of


@pytest.mark.parametrize(
    ("peers", "heartbeats"),
    [(0, 1), (PEERS_A_HEARTBEAT, 1), (PEERS_A_HEARTBEAT + 1, 2), (10_000, MOST_HEARTBEATS), (10**6, MOST_HEARTBEATS)],
)
def test_many_peers_send_their_state_less_often(peers: int, heartbeats: int) -> None:
    assert heartbeats_of(peers) == heartbeats


def test_peers_that_leave_and_join_near_a_bound_change_nothing() -> None:
    """A change is a message to all of them."""
    assert heartbeats_of(PEERS_A_HEARTBEAT - 1, before=2) == 2
    assert heartbeats_of(int(SHORTER_BELOW * PEERS_A_HEARTBEAT) - 1, before=2) == 1
    assert heartbeats_of(PEERS_A_HEARTBEAT + 1, before=3) == 2
    assert heartbeats_of(0, before=3) == 1
