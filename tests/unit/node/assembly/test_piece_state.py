"""What a node has of a snapshot without a torrent: its sources, and which roots a coordinator is sent."""

from pathlib import Path

import pytest

from p2pmodel.core.content.bitfield import pieces_of
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.node.assembly.piece_state import AssemblyPieces
from p2pmodel.swarm.torrents import Metainfo
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_swarm import Swarm


@pytest.fixture
def metainfo(tmp_path: Path) -> Metainfo:
    return Swarm(tmp_path, snapshot_of({"a.bin": bytes(1_000_000), "b.json": b"{}"})).metainfo


@pytest.fixture
def held(metainfo: Metainfo) -> AssemblyPieces:
    return AssemblyPieces(metainfo.layout)


def size(manifest: Manifest, *paths: str) -> int:
    return sum(file.size for file in manifest.files if file.path in paths)


def test_each_piece_counts_once_for_its_first_source(held: AssemblyPieces, metainfo: Metainfo) -> None:
    pieces = list(range(metainfo.layout.piece_count))
    cached, pulled, exchanged = pieces[0], pieces[1], pieces[2]
    held.add([cached])
    held.begin()
    held.add([cached, pulled])
    held.receive(exchanged, b"root")
    held.receive(pulled, b"another root of a piece that is here")
    held.add([exchanged])
    assert (held.before, held.pulled, held.exchanged) == ({cached}, {pulled}, {exchanged})
    assert held.from_others == set(pieces[2:]), "also what a swarm writes while this node leaves it"
    assert held.pulled_bytes == held.size([pulled])
    assert set(pieces_of(held.missing)) == set(pieces[3:])
    assert held.roots == {exchanged: b"root"}
    assert not held.complete
    held.add(pieces)
    assert held.complete
    assert held.missing == 0
    assert held.size(pieces) == size(metainfo.manifest, "a.bin", "b.json")


def test_roots_are_sent_once_some_at_a_time_and_all_of_them_on_a_new_connection(held: AssemblyPieces) -> None:
    roots = {piece: bytes([piece]) for piece in range(3)}
    held.add_roots(roots)
    first = held.take_unsent(2)
    assert len(first) == 2
    assert held.has_unsent
    assert first | held.take_unsent(2) == roots
    assert not held.has_unsent
    assert held.take_unsent(2) == {}
    held.resend_all()
    assert held.take_unsent(9) == roots


def test_roots_of_received_pieces_are_not_sent(held: AssemblyPieces) -> None:
    held.receive(0, b"root")
    assert not held.has_unsent


def test_only_pieces_with_the_torrents_root_match(held: AssemblyPieces, metainfo: Metainfo) -> None:
    span = metainfo.layout.span_of(0)
    true = metainfo.trees[span.path].piece_hash(0)
    held.add([0, 1])
    held.add_roots({0: true, 1: b"\0" * 32, 2: metainfo.trees[span.path].piece_hash(2)})
    assert held.matching(metainfo) == {0}
