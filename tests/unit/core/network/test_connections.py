"""The selection of the busiest connections."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.core.network.connections import PeerConnection, busiest, joined

rates = st.integers(0, 3)


@given(st.lists(st.tuples(rates, rates, rates, rates)), st.integers(0, 5))
def test_at_most_so_many_and_none_that_is_left_out_is_busier(
    counts: list[tuple[int, int, int, int]], most: int
) -> None:
    met = [
        PeerConnection(f"10.0.0.1:{port}", "peer", download_rate=d, upload_rate=u, downloaded=got, uploaded=sent)
        for port, (d, u, got, sent) in enumerate(counts)
    ]
    chosen = busiest(met, most)
    assert len(chosen) == min(most, len(met))
    slowest = min((each.download_rate + each.upload_rate for each in chosen), default=0)
    assert all(each.download_rate + each.upload_rate <= slowest for each in set(met) - set(chosen) if chosen)


@pytest.mark.parametrize("turn", [1, -1])
def test_total_bytes_decide_among_idle_connections(turn: int) -> None:
    much, little = PeerConnection("b:1", "peer", uploaded=9), PeerConnection("a:1", "peer", downloaded=8)
    assert busiest([much, little][::turn]) == (much, little)


def test_a_seeder_is_one_connection_for_all_that_request_from_it() -> None:
    own = PeerConnection("http://10.0.0.1:6969", "seeder", zone="a", download_rate=1, downloaded=10)
    engine = PeerConnection("http://10.0.0.1:6969", "seeder", download_rate=2, downloaded=20)
    other, peer = PeerConnection("http://10.0.0.2:6969", "seeder"), PeerConnection("10.0.0.1:6881", "peer")
    together = PeerConnection("http://10.0.0.1:6969", "seeder", zone="a", download_rate=3, downloaded=30)
    assert joined([own, other], [peer, engine]) == (together, other, peer)
