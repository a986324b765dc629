"""How far a node is with a snapshot, from the progress of a fetch or the view of a transfer."""

from dataclasses import replace
from typing import get_args

import pytest

from p2pmodel.coordinator.rollout.nodes import NodeBytes, NodeFailure
from p2pmodel.core.progress.progress import Phase, Progress
from p2pmodel.core.progress.views import EngineState, State, TransferError, TransferView
from p2pmodel.node.rollout.own_state import (
    RolloutStanding,
    numbers_of,
    source_bytes,
    standing_of_progress,
    standing_of_view,
)

PROGRESS = Progress("downloading", 100, 60, from_cache=10, from_peers=40, from_mirrors=10, from_seeders=15)
VIEW = TransferView("id", "org/m", "c" * 40, (), "active", False, 0, 0.0, "/p", 100, PROGRESS)


@pytest.mark.parametrize("phase", get_args(Phase))
def test_files_are_ready_only_when_the_fetch_says_so(phase: Phase) -> None:
    assert standing_of_progress(Progress(phase)).phase in ("starting", "downloading")
    assert standing_of_progress(Progress(phase), complete=True).phase == "files_ready"


def test_bytes_are_counted_once() -> None:
    assert source_bytes(PROGRESS) == NodeBytes(origin=10, seeder=15, peers=25, cache=10)


@pytest.mark.parametrize("state", get_args(State))
def test_an_incomplete_transfer_is_never_ready(state: State) -> None:
    assert standing_of_view(replace(VIEW, state=state)).phase in ("starting", "downloading")


@pytest.mark.parametrize(
    ("engine", "phase"),
    [
        ("none", "files_ready"),
        ("loading", "loading"),
        ("loaded", "loaded"),
        ("answered", "answered"),
        ("failed", "failed"),
    ],
)
def test_the_engine_of_a_complete_transfer_decides_its_phase(engine: EngineState, phase: str) -> None:
    assert standing_of_view(replace(VIEW, complete=True, engine=engine)).phase == phase


def test_a_failed_transfer_says_why() -> None:
    view = replace(VIEW, error=TransferError("no_space", "the disk is full", "free some"))
    assert standing_of_view(view).failure == NodeFailure("no_space", "the disk is full", "free some")


def test_gates_have_the_time_of_their_first_passing() -> None:
    ready = RolloutStanding("files_ready", PROGRESS).after(None, 10.0)
    loaded = RolloutStanding("loaded", PROGRESS).after(ready, 14.0)
    ended = RolloutStanding("files_ready", PROGRESS).after(loaded, 15.0)
    assert ended.report(20.0).ages == {"files": 10.0, "loaded": 6.0}
    again = RolloutStanding("downloading", PROGRESS).after(ended, 21.0)
    assert again.report(22.0).ages == {}


def test_a_failure_keeps_the_gates_before_it_and_passes_none() -> None:
    ready = RolloutStanding("files_ready", PROGRESS).after(None, 10.0)
    assert RolloutStanding("failed", PROGRESS).after(ready, 11.0).passed == {"files": 10.0}


def test_numbers_alone_change_no_essence() -> None:
    one, two = standing_of_progress(PROGRESS), standing_of_progress(replace(PROGRESS, done=99))
    assert one.essence == two.essence
    assert one.essence != standing_of_progress(PROGRESS, complete=True).after(None, 1.0).essence


def test_nothing_goes_with_a_demand_before_the_size_is_known() -> None:
    assert numbers_of(Progress("finding")) is None
    found = numbers_of(PROGRESS)
    assert found is not None
    assert (found.total, found.bytes, found.why) == (100, source_bytes(PROGRESS), None)
