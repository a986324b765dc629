"""The state of one torrent, from notices."""

from p2pmodel.swarm.engine import PieceVerified
from p2pmodel.swarm.libtorrent.alerts import Available, Ticked
from p2pmodel.swarm.libtorrent.torrent_state import TorrentState


async def test_no_piece_is_available_once_the_last_peer_has_left() -> None:
    state = TorrentState(frozenset(), 3)
    state.notice(Ticked(frozenset(), 2, 1, 0, 0, 0))
    state.notice(Available((2, 1, 0)))
    assert state.status().availability == (2, 1, 0)
    state.notice(Ticked(frozenset(), 0, 0, 0, 0, 0))
    assert state.status().availability == (0, 0, 0)


async def test_padded_pieces_alone_are_missing_once_all_others_that_are_wanted_are_there() -> None:
    state = TorrentState(frozenset({0}), 5, wanted=frozenset({0, 1, 2}), padded=frozenset({2, 4}))
    assert not state.at_padded_pieces
    state.notice(PieceVerified(1))
    assert state.at_padded_pieces
    state.notice(PieceVerified(2))
    assert not state.at_padded_pieces
