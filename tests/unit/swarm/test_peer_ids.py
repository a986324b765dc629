"""Peer ids of p2pmodel."""

from p2pmodel.swarm.peer_ids import is_ours, new_peer_id


def test_an_id_is_unique_printable_and_recognised_as_ours() -> None:
    first, second = new_peer_id(), new_peer_id()
    assert first != second
    for each in (first, second):
        raw = bytes.fromhex(each)
        assert len(raw) == 20
        assert raw.isascii()
        assert raw.decode().isprintable()
        assert (raw[:1], raw[7:8]) == (b"-", b"-")
        assert is_ours(each)
    assert not is_ours(b"-LT2110-abcdefghijkl".hex())
