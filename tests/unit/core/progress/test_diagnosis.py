"""The bound of a transfer in every situation."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.core.progress.diagnosis import HostBounds, explain
from p2pmodel.core.progress.progress import Phase, Progress
from p2pmodel.core.progress.views import EngineState, State, TransferError, TransferView

MB = 1_000_000


def view(state: State = "active", phase: Phase = "downloading", **progress: object) -> TransferView:
    return TransferView(
        id="0123456789ab",
        repo="org/model",
        commit="ab" * 20,
        revisions=(),
        state=state,
        complete=state in ("seeding", "ready"),
        priority=0,
        added=0.0,
        path="",
        size=0,
        progress=Progress(phase, 1000 * MB, **progress),  # type: ignore[arg-type]
    )


def bound(now: TransferView, around: HostBounds | None = None, *, peers: float = 0, mirrors: float = 0):
    """The bound at these rates, over 2 s."""
    progress = dataclasses.replace(now.progress, download_rate=int(peers + mirrors), from_mirrors=int(2 * mirrors))
    return explain(now, dataclasses.replace(now, progress=progress), 2.0, around or HostBounds())


def test_at_rest_it_is_no_matter_of_speed():
    fast = HostBounds(limit=1, link=1.0, disk_pressure=99.0)
    assert bound(view("paused"), fast).bound == "paused"
    assert bound(view("queued"), fast).bound == "queue"
    assert bound(view("seeding"), fast).bound == "nothing"
    assert bound(view("ready"), fast).bound == "nothing"
    failed = dataclasses.replace(view("failed"), error=TransferError("unavailable", "no mirror answers", "ask later"))
    assert (bound(failed).what, bound(failed).advice) == ("no mirror answers", "ask later")


@pytest.mark.parametrize(
    ("engine", "reached", "says"),
    [
        ("none", "none", "it is complete"),
        ("loading", "none", "an engine loads it"),
        ("loaded", "loaded", "has loaded it, and has not answered yet"),
        ("answered", "answered", "has loaded it and answered"),
        ("none", "answered", "has loaded it and answered"),
        ("failed", "none", "could not load it"),
    ],
)
def test_of_a_complete_snapshot_it_says_what_engines_did(engine: EngineState, reached: EngineState, says: str):
    now = dataclasses.replace(view("seeding"), engine=engine, engine_reached=reached)
    assert bound(now).what.endswith(says)
    assert bound(now).advice == ("see the engine's log" if engine == "failed" else "")


@pytest.mark.parametrize("phase", ["checking", "hashing", "verifying", "publishing"])
def test_hashing_is_bound_by_cores_or_the_disk(phase: Phase):
    assert bound(view(phase=phase)).bound == "hash"
    assert bound(view(phase=phase), HostBounds(disk_pressure=80.0)).bound == "disk"


def test_a_node_without_its_peers_is_cut_off():
    found = bound(view(exception="node gpu017 cannot reach its peers"), mirrors=10 * MB)
    assert (found.bound, found.what) == (
        "cut off",
        "node gpu017 cannot reach its peers: the rest comes from the mirrors",
    )
    assert bound(view(exception="node gpu017 cannot reach its peers"), peers=10 * MB).bound != "cut off"


def test_a_firewall_is_told_from_a_swarm_without_peers():
    text = "this node cannot connect to any of its peers (10.0.0.4:6881: timed out)"
    found = bound(view(unreachable=text))
    assert (found.bound, found.what) == ("unreachable", text)
    assert "swarm.advertise" in found.advice
    assert bound(view()).bound == "no peers"
    assert bound(view(peers=2, unreachable=text)).bound == "seeder"


def test_a_lookup_or_another_process_is_the_bound():
    assert bound(view(phase="finding", waiting_for="the other p2pmodel process")).what.endswith(
        "the other p2pmodel process"
    )
    assert bound(view(phase="finding")).bound == "lookup"


def test_the_limit_that_was_set():
    found = bound(view(peers=3), HostBounds(limit=10 * MB, link=100.0 * MB), peers=9.5 * MB)
    assert (found.bound, found.rate, found.capacity, found.ratio) == ("limit", 9.5 * MB, 10 * MB, 0.95)


def test_a_limit_that_two_transfers_use_up():
    found = bound(view(peers=3), HostBounds(limit=10 * MB, others=5.0 * MB), peers=4.5 * MB)
    assert (found.bound, found.rate, found.ratio) == ("limit", 4.5 * MB, 0.95)
    assert bound(view(peers=3), HostBounds(limit=10 * MB), peers=4.5 * MB).bound == "seeder"


def test_the_own_link():
    found = bound(view(peers=3), HostBounds(link=125.0 * MB), peers=60 * MB, mirrors=60 * MB)
    assert (found.bound, found.rate, round(found.ratio, 2)) == ("link", 120 * MB, 0.96)


def test_the_disk():
    assert bound(view(peers=3), HostBounds(link=125.0 * MB, disk_pressure=70.0), peers=20 * MB).bound == "disk"


def test_mirrors():
    found = bound(view(), HostBounds(mirrors=40.0 * MB), peers=1 * MB, mirrors=30 * MB)
    assert (found.bound, found.ratio) == ("mirrors", 31 / 40)
    assert bound(view(phase="mirroring")).bound == "mirrors"
    assert bound(view(phase="mirroring")).ratio is None


def test_without_peers_the_bound_is_their_absence():
    found = bound(view(waiting_for="peers (none is connected); tracker http://x: refused"))
    assert (found.bound, found.rate) == ("no peers", 0.0)
    assert "refused" in found.what


def test_peers_that_send_no_faster():
    found = bound(view(peers=4), HostBounds(link=125.0 * MB), peers=25 * MB)
    assert (found.bound, found.ratio) == ("seeder", 0.2)


@given(
    st.sampled_from(["active", "queued", "paused", "seeding"]),
    st.sampled_from(["finding", "checking", "mirroring", "downloading", "verifying", "done"]),
    st.integers(0, 9),
    st.floats(0, 1e9),
    st.floats(0, 1e9),
    st.builds(
        HostBounds,
        st.integers(0, 10**9),
        st.none() | st.floats(1, 1e9),
        st.none() | st.floats(1, 1e9),
        st.none() | st.floats(0, 100),
    ),
)
def test_there_is_always_an_answer(state, phase, peers, from_peers, from_mirrors, around):  # noqa: PLR0917
    found = bound(view(state, phase, peers=peers), around, peers=from_peers, mirrors=from_mirrors)
    assert found.what
    assert found.ratio is None or found.ratio >= 0
    assert found.advice or found.bound == "nothing"
