"""What a node has of a snapshot without a torrent: whence it came, and what a coordinator is told of it."""

from pathlib import Path

import pytest

from p2pmodel.coordinator.leases import pieces_of
from p2pmodel.core.manifest import Manifest
from p2pmodel.node.assembly.piece_state import AssemblyPieces
from p2pmodel.swarm.torrents import Metainfo
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_swarm import Swarm


@pytest.fixture
def metainfo(tmp_path: Path) -> Metainfo:
    return Swarm(tmp_path, snapshot_of({"a.bin": bytes(1_000_000), "b.json": b"{}"})).metainfo


@pytest.fixture
def gathered(metainfo: Metainfo) -> AssemblyPieces:
    return AssemblyPieces(metainfo.layout)


def size(manifest: Manifest, *paths: str) -> int:
    return sum(file.size for file in manifest.files if file.path in paths)


def test_each_piece_counts_once_for_where_it_came_from_first(gathered: AssemblyPieces, metainfo: Metainfo) -> None:
    pieces = list(range(metainfo.layout.piece_count))
    cached, pulled, traded = pieces[0], pieces[1], pieces[2]
    gathered.add([cached])
    gathered.begin()
    gathered.add([cached, pulled])
    gathered.trade(traded, b"root")
    gathered.trade(pulled, b"another's word for what we have")
    gathered.add([traded])
    assert (gathered.before, gathered.pulled, gathered.traded) == ({cached}, {pulled}, {traded})
    assert gathered.pulled_bytes == gathered.size([pulled])
    assert set(pieces_of(gathered.missing)) == set(pieces[3:])
    assert gathered.roots == {traded: b"root"}
    assert not gathered.complete
    gathered.add(pieces)
    assert gathered.complete
    assert gathered.missing == 0
    assert gathered.size(pieces) == size(metainfo.manifest, "a.bin", "b.json")


def test_roots_are_told_once_so_many_at_a_time_and_all_of_them_to_who_knows_nothing(gathered: AssemblyPieces) -> None:
    roots = {piece: bytes([piece]) for piece in range(3)}
    gathered.root(roots)
    first = gathered.tell(2)
    assert len(first) == 2
    assert gathered.has_news
    assert first | gathered.tell(2) == roots
    assert not gathered.has_news
    assert gathered.tell(2) == {}
    gathered.greet()
    assert gathered.tell(9) == roots


def test_what_others_gave_us_is_no_news(gathered: AssemblyPieces) -> None:
    gathered.trade(0, b"root")
    assert not gathered.has_news


def test_only_what_the_torrent_has_alike_is_right(gathered: AssemblyPieces, metainfo: Metainfo) -> None:
    span = metainfo.layout.span_of(0)
    true = metainfo.trees[span.path].piece_hash(0)
    gathered.add([0, 1])
    gathered.root({0: true, 1: b"\0" * 32, 2: metainfo.trees[span.path].piece_hash(2)})
    assert gathered.right(metainfo) == {0}
