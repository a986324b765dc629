"""Peer ids of p2pmodel."""

import pytest

from p2pmodel.core.network.connections import PeerConnection
from p2pmodel.swarm.peer_ids import (
    ONLY_ENGINE,
    EngineNumber,
    by_node,
    engine_number,
    is_ours,
    new_peer_id,
    node_of,
    peer_ids_of_node,
)


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


def test_the_engines_of_one_node_have_ids_that_show_it() -> None:
    for count in range(2, 9):
        ids = [bytes.fromhex(each) for each in peer_ids_of_node(count)]
        assert [engine_number(each) for each in ids] == [EngineNumber(number, count) for number in range(count)]
        assert {node_of(each) for each in ids} == {ids[0]}
        assert all(len(each) == 20 and is_ours(each.hex()) for each in ids)
    assert node_of(bytes.fromhex(peer_ids_of_node(2)[0])) != node_of(bytes.fromhex(peer_ids_of_node(2)[0]))


@pytest.mark.parametrize("peer_id", [b"-LT2110-abcdefghijkl", b"-PM0100-abcdefabcdef", b"-PM0100-abcdefabcE44", b""])
def test_other_ids_are_of_peers_with_one_engine(peer_id: bytes) -> None:
    assert engine_number(peer_id) == ONLY_ENGINE
    assert node_of(peer_id) == peer_id
    assert engine_number(bytes.fromhex(peer_ids_of_node(1)[0])) == ONLY_ENGINE


@pytest.mark.parametrize("one", range(1, 9))
@pytest.mark.parametrize("other", range(1, 9))
def test_two_engines_have_use_for_each_other_if_a_piece_belongs_to_both(one: int, other: int) -> None:
    for first in range(one):
        for second in range(other):
            common = any(piece % one == first and piece % other == second for piece in range(one * other))
            assert EngineNumber(first, one).has_use_for(EngineNumber(second, other)) == common


def test_the_connections_to_the_engines_of_a_node_are_reported_as_one() -> None:
    ids, other = peer_ids_of_node(2), new_peer_id()
    found = by_node(
        [
            PeerConnection(
                "10.0.0.1:6885", "peer", peer_id=ids[1], progress=0.25, downloaded=5, uploaded=1, flags="dU"
            ),
            PeerConnection("10.0.0.2:6881", "peer", peer_id=other, progress=0.5, downloaded=7),
            PeerConnection("10.0.0.1:6881", "peer", peer_id=ids[0], progress=0.5, downloaded=3, flags="D"),
            PeerConnection("10.0.0.2:6881", "peer", peer_id=other, progress=0.5, downloaded=1),
        ]
    )
    assert [(each.address, each.peer_id, each.progress, each.downloaded) for each in found] == [
        ("10.0.0.1:6881", ids[0], 0.75, 8),
        ("10.0.0.2:6881", other, 0.5, 8),
    ]
    assert set(found[0].flags) == {"d", "D", "U"}
