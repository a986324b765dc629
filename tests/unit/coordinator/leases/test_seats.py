"""How many pieces are requested of the seeders at a time."""

from p2pmodel.coordinator.leases.seats import PieceWindow


def test_the_window_of_a_peer_without_others_grows_with_each_quick_piece() -> None:
    alone, together = PieceWindow(), PieceWindow()
    for _ in range(20):
        alone.took(0.01, peers=1)
        together.took(0.01, peers=2)
    assert alone.size(1000) == PieceWindow.LEAST + 20
    assert together.size(1000) < alone.size(1000)
    for _ in range(20):
        alone.took(3.0, peers=1)
    assert alone.size(1000) < PieceWindow.LEAST + 20
