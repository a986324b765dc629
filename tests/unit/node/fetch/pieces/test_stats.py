"""Counting pieces: the sums agree for all events in any order."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.node.fetch.pieces.stats import PieceSource, PieceStats
from p2pmodel.swarm.torrents import Metainfo
from tests.support.node_swarm import Swarm

SOURCES: tuple[PieceSource, ...] = get_args(PieceSource)


@pytest.fixture(scope="module")
def metainfo(tmp_path_factory: pytest.TempPathFactory) -> Metainfo:
    return Swarm(tmp_path_factory.mktemp("stats")).metainfo


def all_files(metainfo: Metainfo) -> frozenset[int]:
    return frozenset(range(len(metainfo.manifest.files)))


@given(st.data())
def test_the_sums_agree(metainfo: Metainfo, data: st.DataObject) -> None:
    files = frozenset(data.draw(st.sets(st.sampled_from(sorted(all_files(metainfo))), min_size=1)))
    pieces = st.sets(st.sampled_from(range(metainfo.layout.piece_count)))
    have, mirrored = frozenset(data.draw(pieces)), frozenset(data.draw(pieces))
    exchanged = frozenset(data.draw(pieces)) - mirrored
    stats = PieceStats(metainfo, files)
    stats.begin(have, mirrored=mirrored, exchanged=exchanged)
    whole = stats.whole()
    for piece in data.draw(st.permutations(sorted(stats.missing))):
        assert stats.done == stats.total - stats.size(stats.missing)
        assert sum(file.done for file in stats.file_progress(metainfo.manifest)) == stats.done
        assert stats.incomplete() == sorted({metainfo.layout.span_of(other).index for other in stats.missing})
        finished = stats.arrived(piece, data.draw(st.sampled_from(SOURCES)))
        whole += [] if finished is None else [finished]
    assert stats.done == stats.total
    assert sorted(whole) == sorted(files)
    assert stats.from_seeders <= stats.from_peers
    assert (
        stats.size(stats.mirrored & {p for i in files for p in metainfo.layout.spans[i].pieces}) == stats.from_mirrors
    )


def test_all_wanted_files_are_not_all_files(metainfo: Metainfo) -> None:
    everything = frozenset(range(metainfo.layout.piece_count))
    nothing: frozenset[int] = frozenset()
    for files, expected in ((all_files(metainfo), True), (all_files(metainfo) - {0}, False)):
        stats = PieceStats(metainfo, files)
        stats.begin(everything, mirrored=nothing, exchanged=nothing)
        assert stats.has_all is expected
    stats = PieceStats(metainfo, all_files(metainfo))
    stats.begin(everything - {0}, mirrored=nothing, exchanged=nothing)
    assert not stats.has_all


def test_every_start_counts_anew_and_knows_what_has_arrived_before(metainfo: Metainfo) -> None:
    stats = PieceStats(metainfo, all_files(metainfo))
    nothing: frozenset[int] = frozenset()
    stats.begin(nothing, mirrored=nothing, exchanged=nothing)
    first = stats.missing
    stats.arrived(0, "mirrors")
    stats.arrived(1, "seeders")
    sizes = stats.from_mirrors, stats.from_peers
    assert stats.mirrored == {0}
    stats.begin(frozenset({0, 1, 2}), mirrored=nothing, exchanged=nothing)
    assert (stats.from_mirrors, stats.from_peers, stats.from_seeders) == (*sizes, sizes[1])
    assert stats.before == {2}
    assert stats.missing is not first
    stats.begin(nothing, mirrored=nothing, exchanged=nothing)
    assert (stats.from_mirrors, stats.from_peers, stats.mirrored) == (0, 0, set())


def test_only_some_pieces_may_be_missing_for_now(metainfo: Metainfo) -> None:
    stats = PieceStats(metainfo, all_files(metainfo))
    nothing: frozenset[int] = frozenset()
    assert not any(file.done or file.verified for file in stats.file_progress(metainfo.manifest)), "nothing is known"
    stats.begin(frozenset({0}), mirrored=nothing, exchanged=nothing, only=frozenset({0, 1}))
    assert stats.missing == {1}
    assert sum(file.done for file in stats.file_progress(metainfo.manifest)) == stats.size({0})
