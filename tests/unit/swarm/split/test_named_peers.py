"""Which engine connects to which engine of a peer that was named by an address."""

from p2pmodel.core.network.connections import PeerConnection
from p2pmodel.swarm.peer_ids import new_peer_id, peer_ids_of_node
from p2pmodel.swarm.split.named_peers import ANSWERS_WITHIN, RETRY_AFTER, NamedPeers, further_port

HOST, PORT = "10.0.0.1", 6881
NONE: list[list[PeerConnection]] = [[], [], [], []]


def connected(engines: int, progress: float) -> list[list[PeerConnection]]:
    peer = PeerConnection(f"{HOST}:{PORT}", "peer", progress=progress, peer_id=peer_ids_of_node(engines)[0])
    return [[peer], [], [], []]


def named(count: int = 4) -> NamedPeers:
    found = NamedPeers(count)
    found.name(HOST, PORT, 0.0)
    return found


def test_nothing_is_dialled_before_the_first_connection_tells_how_many_engines_there_are() -> None:
    asked = named()
    assert asked.due(NONE, 1.0) == []
    assert asked.pending
    assert asked.due(NONE, ANSWERS_WITHIN) == []
    assert not asked.pending


def test_engines_connect_to_those_with_the_same_pieces() -> None:
    assert named().due(connected(4, 0.1), 1.0) == [(n, HOST, 6884 + n) for n in (1, 2, 3)]
    assert named().due(connected(2, 0.1), 1.0) == [(1, HOST, 6885), (2, HOST, 6881), (3, HOST, 6885)]
    assert named(2).due(connected(4, 0.1)[:2], 1.0) == [(0, HOST, 6886), (1, HOST, 6885), (1, HOST, 6887)]


def test_a_peer_with_one_engine_gets_a_connection_of_each() -> None:
    peer = PeerConnection(f"{HOST}:{PORT}", "peer", progress=0.5, peer_id=new_peer_id())
    assert named().due([[peer], [], [], []], 1.0) == [(n, HOST, PORT) for n in (1, 2, 3)]


def test_of_a_peer_with_all_pieces_each_engine_gets_one_engine() -> None:
    assert named(2).due(connected(4, 1.0)[:2], 1.0) == [(1, HOST, 6885)]
    assert named().due(connected(2, 1.0), 1.0) == [(1, HOST, 6885), (2, HOST, PORT), (3, HOST, 6885)]


def test_an_engine_that_is_not_where_it_should_be_is_replaced_by_the_first_one() -> None:
    asked = named()
    now = connected(4, 1.0)
    asked.due(now, 1.0)
    now[2] = [PeerConnection(f"{HOST}:{6886}", "peer")]
    assert asked.due(now, 1.5) == []
    assert asked.due(now, 1.0 + RETRY_AFTER) == [(1, HOST, PORT), (3, HOST, PORT)]
    assert not asked.pending


def test_further_engines_listen_beyond_the_other_ports_of_a_node() -> None:
    assert [further_port(6881, number) for number in range(4)] == [6881, 6885, 6886, 6887]
    assert further_port(65530, 3) == 0
