"""Pieces from other revisions: what is the same is copied, and what is not the same never counts."""

import os
from pathlib import Path

import pytest

from p2pmodel.errors import Interrupted
from p2pmodel.node.snapshot.inventory import take_inventory
from p2pmodel.node.snapshot.reuse.reused_pieces import SAMPLES
from tests.support.disks import reflink_disk
from tests.support.hub_snapshot import snapshot_of
from tests.support.shards import random_tensors, shard
from tests.support.stored import stage
from tests.support.updates import PATH, PIECE, Update

__all__ = ["reflink_disk"]

OLD = random_tensors(8, PIECE + 1000)
OTHER = random_tensors(8, PIECE + 1000, seed=2)


def touched(old: bytes, new: bytes) -> set[int]:
    return {
        start // PIECE
        for start in range(0, len(new), PIECE)
        if old[start : start + PIECE] != new[start : start + PIECE]
    }


def test_only_pieces_of_a_changed_tensor_are_missing(tmp_path: Path):
    new = OLD | {"layer.3.weight": OTHER["layer.3.weight"]}
    update = Update(tmp_path, shard(OLD), shard(new))
    changed = touched(shard(OLD), shard(new))
    assert update.missing() == changed
    assert len(changed) == 2


def test_a_longer_header_costs_one_piece(tmp_path: Path):
    update = Update(tmp_path, shard(OLD), shard(OLD, {"license": "apache-2.0"}))
    assert update.missing() == {0}


def test_reused_pieces_are_named_apart_from_staged_ones(tmp_path: Path):
    update = Update(tmp_path, shard(OLD), shard(OLD, {"license": "apache-2.0"}))
    update.stage(3)
    found = update.take()
    assert found.have - found.reused == {update.span.first_piece + 3}


def test_tensors_in_another_order_are_matched_once_the_header_is_there(tmp_path: Path):
    update = Update(tmp_path, shard(OLD), shard(dict(reversed(OLD.items()))))
    assert update.missing() == set(range(update.span.piece_count))
    update.stage(0)
    assert not update.missing()


def test_tensors_of_another_file_are_matched(tmp_path: Path):
    new = {"extra": b"x" * 2 * PIECE, **OLD}
    update = Update(tmp_path, shard(OLD), shard(new), old_path="old.safetensors")
    update.stage(0)
    assert update.missing() == {1, 2}


def test_a_retrained_file_of_the_same_tensors_has_nothing_to_reuse(tmp_path: Path):
    update = Update(tmp_path, shard(OLD), shard(OTHER))
    update.stage(0)
    assert update.missing() == set(range(1, update.span.piece_count))


def test_a_header_that_lies_about_its_tensors_costs_no_wrong_piece(tmp_path: Path):
    names = list(OLD)
    swapped = {names[-1 - number]: OLD[name] for number, name in enumerate(names)}
    update = Update(tmp_path, shard(swapped), shard(OLD))
    assert update.missing() <= {0}


def test_an_unfinished_revision_is_a_source(tmp_path: Path):
    new, half = shard(OLD), shard(OLD | {"layer.7.weight": OTHER["layer.7.weight"]})
    update = Update(tmp_path, b"an older one", new)
    unfinished = snapshot_of({PATH: half, "README.md": b"between"})
    stage(update.repo, unfinished.manifest, unfinished.file(PATH), half[: 4 * PIECE])
    update.repo.staging(unfinished.commit).begin(unfinished.manifest, ())
    assert update.missing() == set(range(4, update.span.piece_count))


def test_a_placement_without_a_fitting_sample_is_given_up(tmp_path: Path):
    pieces = 4 * SAMPLES
    update = Update(tmp_path, os.urandom(pieces * PIECE), os.urandom(pieces * PIECE))
    read: list[int] = []
    take_inventory(update.repo, update.swarm.metainfo, known=frozenset(), on_bytes=read.append)
    assert sum(read) <= SAMPLES * PIECE


def test_the_old_revision_stays_as_it_is(tmp_path: Path):
    update = Update(tmp_path, shard(OLD), shard(OLD, {"license": "apache-2.0"}))
    assert update.take().reused
    assert (update.repo.snapshot(update.repo.refs()["main"]) / PATH).read_bytes() == shard(OLD)


def test_reused_pieces_take_no_space_where_files_share_blocks(reflink_disk: Path):
    aligned = random_tensors(8, 32 * PIECE)
    old = shard(aligned)
    new = shard({name: bytes(32 * PIECE) if name == "layer.3.weight" else data for name, data in aligned.items()})
    update = Update(reflink_disk, old, new)
    os.sync()
    before = os.statvfs(reflink_disk)
    found = update.take()
    os.sync()
    after = os.statvfs(reflink_disk)
    assert len(found.reused) > 200
    assert (before.f_bfree - after.f_bfree) * after.f_frsize < len(new) // 20


def test_an_interruption_ends_the_search(tmp_path: Path):
    update = Update(tmp_path, shard(OLD), shard(OLD, {"license": "apache-2.0"}))

    def stop(_size: int) -> None:
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        take_inventory(update.repo, update.swarm.metainfo, known=frozenset(), on_bytes=stop)
