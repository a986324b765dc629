"""Which transfers run: never more than allowed, and never one while a more urgent one waits."""

from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.core.progress.views import Candidate, to_run

CANDIDATES = st.lists(
    st.builds(Candidate, st.text("abcdef", min_size=1, max_size=4), st.integers(-3, 3), st.floats(0, 9)),
    unique_by=lambda c: c.id,
    max_size=12,
)


def test_the_earliest_request_runs_first():
    waiting = [Candidate("late", 0, 2.0), Candidate("early", 0, 1.0)]
    assert to_run(waiting, 1) == {"early"}


def test_an_urgent_request_runs_before_an_early_one():
    waiting = [Candidate("early", 0, 1.0), Candidate("urgent", 5, 9.0), Candidate("idle", -1, 0.0)]
    assert to_run(waiting, 2) == {"urgent", "early"}


@given(CANDIDATES, st.integers(1, 5))
def test_the_most_urgent_run_up_to_the_bound(candidates, bound):
    run = to_run(candidates, bound)
    assert len(run) == min(bound, len(candidates))
    waits = [c.priority for c in candidates if c.id not in run]
    assert not waits or max(waits) <= min(c.priority for c in candidates if c.id in run)


@given(CANDIDATES, st.integers(1, 5))
def test_the_order_of_the_candidates_does_not_matter(candidates, bound):
    assert to_run(candidates, bound) == to_run(reversed(candidates), bound)


def test_what_a_client_waits_for_goes_first_within_its_priority() -> None:
    waiting = [Candidate("early", 0, 1.0), Candidate("awaited", 0, 9.0, awaited=True), Candidate("urgent", 1, 8.0)]
    assert to_run(waiting, 2) == {"urgent", "awaited"}
