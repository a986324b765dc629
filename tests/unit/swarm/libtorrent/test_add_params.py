"""Conversion of requests to libtorrent's parameters."""

from pathlib import Path

import libtorrent as lt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.core.content.layout import BLOCK
from p2pmodel.errors import BadTorrent, InvalidInput
from p2pmodel.swarm.engine import AddTorrent, WebSeeds
from p2pmodel.swarm.libtorrent.add_params import PieceSpans, info_hash_of, load, parameters
from p2pmodel.swarm.torrents import parse
from tests.support.torrent_files import SMALL, torrent_of

PIECE = 1 << 15
RAW = torrent_of(
    SMALL, piece_length=PIECE, trackers=("http://t.example/announce",), webseeds=("http://w.example/resolve/",)
)


def test_the_torrents_own_trackers_and_webseeds_are_dropped() -> None:
    params, _ = parameters(AddTorrent(RAW, Path("/x"), {}, trackers=("http://ours/announce",)))
    assert (params.url_seeds, params.http_seeds, params.dht_nodes) == ([], [], [])
    assert params.trackers == ["http://ours/announce"]


def test_with_trackers_peer_exchange_is_disabled() -> None:
    for trackers in ((), ("http://ours/announce",)):
        params, _ = parameters(AddTorrent(RAW, Path("/x"), {}, trackers=trackers))
        assert bool(params.flags & lt.torrent_flags.disable_pex) == bool(trackers)


def test_pieces_marked_as_present_are_trusted_and_the_others_not_checked() -> None:
    params, spans = parameters(AddTorrent(RAW, Path("/x"), {0: "a", 2: "/b"}, have=frozenset({1, 4})))
    assert [piece for piece, have in enumerate(params.have_pieces) if have] == [1, 4]
    assert len(params.have_pieces) == spans.piece_count
    assert params.flags & lt.torrent_flags.no_verify_files
    assert not params.flags & (lt.torrent_flags.auto_managed | lt.torrent_flags.paused)


@pytest.mark.parametrize("form", ["v2", "hybrid"])
def test_wanted_files_are_wanted_by_piece(form: str) -> None:
    raw = torrent_of(SMALL, form, piece_length=PIECE)
    metainfo = parse(raw)
    spans = PieceSpans.of(load(raw).ti)
    for index, span in zip(metainfo.file_indexes, metainfo.layout.spans, strict=True):
        wanted = {piece for piece, level in enumerate(spans.priorities({index})) if level}
        assert wanted == set(span.pieces)
    assert all(spans.priorities(None))


@pytest.mark.parametrize(
    ("sizes", "fit"),
    [
        ([2 * PIECE, PIECE, 5], True),
        ([2 * PIECE + 1, 5], True),
        ([PIECE + BLOCK, 5], True),
        ([PIECE + BLOCK + 1, 5], False),
        ([2 * PIECE - 1, 5], False),
        ([5, BLOCK + 1], False),
        ([5, 0, 2 * PIECE], True),
    ],
)
def test_no_file_may_end_within_the_last_block_of_a_piece_for_web_seeds(sizes: list[int], fit: bool) -> None:
    contents = {f"{number}.bin": bytes(size) for number, size in enumerate(sizes)}
    urls = ("http://127.0.0.1:6969/source/org/model/resolve/",)
    for form, fits in (("v2", fit), ("hybrid", False)):
        request = AddTorrent(torrent_of(contents, form, piece_length=PIECE), Path("/x"), {}, web_seeds=WebSeeds(urls))
        params, spans = parameters(request)
        assert spans.fit_web_seeds == fits
        assert params.url_seeds == (list(urls) if fits else [])


@given(st.lists(st.integers(0, 300), min_size=1, max_size=8), st.integers(1, 64))
def test_a_v1_file_needs_every_piece_it_touches(sizes: list[int], piece_length: int) -> None:
    offsets = [sum(sizes[:number]) for number in range(len(sizes))]
    count = -(-sum(sizes) // piece_length)
    spans = PieceSpans(piece_length, count, tuple(zip(offsets, sizes, strict=True)))
    for number, size in enumerate(sizes):
        touched = {(offsets[number] + byte) // piece_length for byte in range(size)}
        assert {piece for piece, level in enumerate(spans.priorities({number})) if level} == touched


def test_nonsense_is_refused() -> None:
    with pytest.raises(BadTorrent):
        load(b"not bencode")
    with pytest.raises(InvalidInput, match="not piece 10000"):
        parameters(AddTorrent(RAW, Path("/x"), {}, have=frozenset({10_000})))
    with pytest.raises(InvalidInput, match="no file 99"):
        parameters(AddTorrent(RAW, Path("/x"), {}, wanted=frozenset({99})))


def test_the_info_hash_is_the_v2_one_if_there_is_one() -> None:
    assert info_hash_of(load(RAW)) == parse(RAW).info_hash
    assert len(info_hash_of(load(torrent_of(SMALL, "hybrid", piece_length=PIECE)))) == 64
    assert len(info_hash_of(load(torrent_of(SMALL, "v1", piece_length=PIECE)))) == 40
