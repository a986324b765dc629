"""The state of one torrent, from notices."""

from p2pmodel.swarm.libtorrent.alerts import Available, Ticked
from p2pmodel.swarm.libtorrent.torrent_state import TorrentState


async def test_no_piece_is_available_once_the_last_peer_has_left() -> None:
    state = TorrentState(frozenset(), 3)
    state.notice(Ticked(frozenset(), 2, 1, 0, 0, 0))
    state.notice(Available((2, 1, 0)))
    assert state.status().availability == (2, 1, 0)
    state.notice(Ticked(frozenset(), 0, 0, 0, 0, 0))
    assert state.status().availability == (0, 0, 0)
