"""Session settings: relations between them, and features that are off."""

import os

import libtorrent as lt
import pytest

from p2pmodel.core.content.layout import BLOCK
from p2pmodel.errors import InvalidInput
from p2pmodel.swarm.engine import EngineSettings
from p2pmodel.swarm.libtorrent.session_settings import session_settings
from p2pmodel.swarm.peer_ids import new_peer_id

ALERTS = 0
PEER_ID = new_peer_id()


def test_discovery_beyond_the_tracker_is_off() -> None:
    pack = session_settings(EngineSettings(), ALERTS, PEER_ID)
    assert not any(pack[f"enable_{name}"] for name in ("dht", "lsd", "upnp", "natpmp"))


def test_the_send_buffer_holds_less_than_the_request_queue() -> None:
    """Otherwise a flow that slows down once stays slow: its queued requests take as long as the queue time allows. A
    flow carries few blocks a second if links are slow and peers many, so that each waiting block counts."""
    pack = session_settings(EngineSettings(), ALERTS, PEER_ID)
    waiting, ahead = pack["send_buffer_watermark_factor"] / 100, pack["request_queue_time"]
    assert 0 < 5 * waiting <= ahead
    assert 0 < pack["send_buffer_low_watermark"] < BLOCK


@pytest.mark.parametrize(
    ("host", "interfaces", "from_address"),
    [("127.0.0.1", "127.0.0.1:7", "127.0.0.1"), ("::1", "[::1]:7", "::1"), ("0.0.0.0", "0.0.0.0:7", "")],
)
def test_a_node_is_one_address_to_others(host: str, interfaces: str, from_address: str) -> None:
    pack = session_settings(EngineSettings(host, 7), ALERTS, PEER_ID)
    assert (pack["listen_interfaces"], pack["outgoing_interfaces"]) == (interfaces, from_address)


def test_a_name_is_no_address() -> None:
    with pytest.raises(InvalidInput, match="'localhost'"):
        session_settings(EngineSettings("localhost"), ALERTS, PEER_ID)


@pytest.mark.parametrize(("seconds", "owed"), [(0.1, 2), (2.5, 3), (10.0, 10)])
def test_a_peer_that_owes_and_delivers_nothing_is_left_after_the_peer_timeout(seconds: float, owed: int) -> None:
    pack = session_settings(EngineSettings(peer_timeout=seconds), ALERTS, PEER_ID)
    assert (pack["request_timeout"], pack["piece_timeout"], pack["peer_timeout"]) == (owed, owed, 3 * owed)
    assert lt.session(pack).get_settings()["peer_timeout"] == 3 * owed


def test_a_benchmark_may_set_anything() -> None:
    assert session_settings(EngineSettings(extra={"request_queue_time": 9}), ALERTS, PEER_ID)["request_queue_time"] == 9


def test_the_engine_looks_up_a_tracker_anew_within_a_minute() -> None:
    pack = session_settings(EngineSettings("127.0.0.1"), ALERTS, PEER_ID)
    session = lt.session(pack)
    assert session.get_settings()["resolver_cache_timeout"] <= 60


def test_the_engines_of_a_node_share_its_memory_and_connections() -> None:
    alone, one_of_four = (session_settings(EngineSettings(engines=n), ALERTS, PEER_ID) for n in (1, 4))
    for name in ("max_queued_disk_bytes", "connections_limit", "file_pool_size"):
        assert one_of_four[name] == alone[name] // 4


@pytest.mark.parametrize(("engines", "cores", "hashing"), [(1, 2, 1), (1, 3, 1), (1, 4, 2), (4, 12, 1), (4, 13, 2)])
def test_few_cores_for_an_engine_hash_pieces_on_one_thread(
    monkeypatch: pytest.MonkeyPatch, engines: int, cores: int, hashing: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cores)))
    assert session_settings(EngineSettings(engines=engines), ALERTS, PEER_ID)["hashing_threads"] == hashing
