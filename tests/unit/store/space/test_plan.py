"""Which snapshots leave a cache: over random lives of a cache nothing leaves that a rule protects."""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from p2pmodel.core.content.names import RepoId
from p2pmodel.store.space.plan import (
    FOLLOWED,
    LAST_COPY,
    PINNED,
    UNKNOWN,
    HeldSnapshot,
    SnapshotFacts,
    SpaceRules,
    own_bytes,
    planned,
    protection,
)

REPO = RepoId("org/model")


def held(commit: str, contents: dict[str, int], used: float = 0.0, kept: str = "") -> HeldSnapshot:
    return HeldSnapshot(REPO, commit, contents, used, kept)


def left(*snapshots: HeldSnapshot, rules: SpaceRules, total: int = 0, now: float = 1000.0) -> list[str]:
    size = total or sum({c: s for each in snapshots for c, s in each.contents.items()}.values())
    return [each.snapshot.commit for each in planned(snapshots, size, rules, now).leaving]


def test_above_the_budget_those_used_longest_ago_leave_down_to_the_low_mark() -> None:
    three = [held("new", {"n": 40}, 3), held("old", {"o": 40}, 1), held("mid", {"m": 40}, 2)]
    assert left(*three, rules=SpaceRules(120, 60)) == []
    assert left(*three, rules=SpaceRules(119, 80)) == ["old"]
    assert left(*three, rules=SpaceRules(119, 79)) == ["old", "mid"]


def test_what_was_not_used_for_long_leaves_within_the_budget() -> None:
    two = [held("new", {"n": 40}, 990), held("old", {"o": 40}, 10), held("kept", {"k": 1}, 0, PINNED)]
    assert left(*two, rules=SpaceRules(unused=100)) == ["old"]


def test_what_is_on_a_follow_list_stays() -> None:
    assert protection(SnapshotFacts(followed=True, copies=2, in_swarm=True)) == FOLLOWED
    assert protection(SnapshotFacts(copies=2, in_swarm=True)) == ""


def test_a_removal_frees_only_what_no_other_snapshot_has() -> None:
    both = [held("old", {"same": 90, "a": 10}, 1), held("new", {"same": 90, "b": 10}, 2)]
    plan = planned(both, 110, SpaceRules(100, 50), 0)
    assert [each.freed for each in plan.leaving] == [10, 100]
    assert own_bytes(both[0], both) == 10


def test_a_snapshot_that_would_free_nothing_stays() -> None:
    both = [held("old", {"same": 90}, 1), held("pinned", {"same": 90}, 2, PINNED)]
    plan = planned(both, 90, SpaceRules(50, 40), 0)
    assert (plan.leaving, plan.over) == ((), 40)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (SnapshotFacts(in_swarm=True, copies=0, on_mirror=True), LAST_COPY),
        (SnapshotFacts(in_swarm=True, copies=1), ""),
        (SnapshotFacts(in_swarm=True, on_mirror=True), UNKNOWN),
        (SnapshotFacts(on_mirror=True), ""),
        (SnapshotFacts(), UNKNOWN),
    ],
)
def test_another_copy_must_be_known(facts: SnapshotFacts, reason: str) -> None:
    assert protection(facts) == reason


@dataclass
class _Revision:
    contents: dict[str, int]
    used: float
    readers: int = 0
    loading: bool = False
    copies: int | None = 0


@dataclass
class _Disk:
    """A cache with the names that point into it. Blobs exist as long as a revision has them."""

    revisions: dict[str, _Revision] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    pins: set[str] = field(default_factory=set)

    @property
    def blobs(self) -> dict[str, int]:
        return {content: size for each in self.revisions.values() for content, size in each.contents.items()}

    def pinned(self) -> set[str]:
        return {self.names.get(pin, pin) for pin in self.pins}


COMMITS = st.sampled_from("abc")
NAMES = st.sampled_from(("main", "stable"))


class LifeOfACache(RuleBasedStateMachine):
    """A node of a swarm with a budget that is below two revisions."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = _Disk()
        self.now = 0.0

    @rule(
        commit=COMMITS,
        shared=st.integers(0, 2),
        own=st.integers(0, 60),
        copies=st.sampled_from((1, 3, 0, None)),
        loading=st.booleans(),
    )
    def fetch(self, commit: str, shared: int, own: int, copies: int | None, *, loading: bool) -> None:
        contents = {f"shared-{shared}": 40, f"own-{commit}": own}
        revision = self.disk.revisions.setdefault(commit, _Revision(contents, self.now))
        revision.used, revision.copies, revision.loading = self.now, copies, loading

    @rule(commit=COMMITS)
    def finish(self, commit: str) -> None:
        if commit in self.disk.revisions:
            self.disk.revisions[commit].loading = False

    @rule(name=NAMES, commit=COMMITS)
    def move_name(self, name: str, commit: str) -> None:
        if commit in self.disk.revisions:
            self.disk.names[name] = commit

    @rule(pin=st.one_of(NAMES, COMMITS))
    def toggle_pin(self, pin: str) -> None:
        self.disk.pins ^= {pin}

    @rule(commit=COMMITS, change=st.sampled_from((1, 1, -1)))
    def read(self, commit: str, change: int) -> None:
        if commit in self.disk.revisions:
            revision = self.disk.revisions[commit]
            revision.readers, revision.used = max(0, revision.readers + change), self.now

    @rule(commit=COMMITS, copies=st.sampled_from((1, 0, None)))
    def other_nodes_change(self, commit: str, copies: int | None) -> None:
        if commit in self.disk.revisions:
            self.disk.revisions[commit].copies = copies

    @rule(
        seconds=st.integers(1, 400),
        budget=st.integers(1, 150),
        low=st.integers(1, 100),
        unused=st.sampled_from((0, 0, 300)),
    )
    def prune(self, seconds: int, budget: int, low: int, unused: int) -> None:
        self.now += seconds
        before, pinned = dict(self.disk.revisions), self.disk.pinned()
        must_stay = {
            commit
            for commit, each in before.items()
            if commit in pinned or each.readers or each.loading or not each.copies
        }
        snapshots = [
            held(
                commit,
                each.contents,
                each.used,
                protection(
                    SnapshotFacts(
                        pinned=commit in pinned,
                        loading=each.loading,
                        read=each.readers > 0,
                        copies=each.copies,
                        in_swarm=True,
                    )
                ),
            )
            for commit, each in before.items()
        ]
        total = sum(self.disk.blobs.values())
        plan = planned(snapshots, total, SpaceRules(budget, low, unused), self.now)
        size = total
        for each in plan.leaving:
            commit = each.snapshot.commit
            old = unused and self.now - before[commit].used > unused
            assert old or size > min(low, budget), "it left without need"
            del self.disk.revisions[commit]
            now = sum(self.disk.blobs.values())
            assert each.freed == size - now
            size = now
        assert must_stay <= self.disk.revisions.keys()
        assert plan.after == size
        gone = {each.snapshot.commit for each in plan.leaving if not each.expired}
        assert not gone or max(before[c].used for c in gone) <= min(
            (each.used for c, each in self.disk.revisions.items() if self._frees(c, must_stay)), default=self.now
        ), "a snapshot that was used earlier has stayed"
        if total > budget and size > budget:
            assert not any(self._frees(commit, must_stay) for commit in self.disk.revisions)

    def _frees(self, commit: str, must_stay: set[str]) -> bool:
        fixed = {content for each in must_stay for content in self.disk.revisions[each].contents}
        contents = self.disk.revisions[commit].contents
        return commit not in must_stay and any(size and content not in fixed for content, size in contents.items())

    @invariant()
    def readers_have_their_files(self) -> None:
        assert all(
            content in self.disk.blobs
            for each in self.disk.revisions.values()
            if each.readers or each.loading
            for content in each.contents
        )


TestLifeOfACache = LifeOfACache.TestCase
TestLifeOfACache.settings = settings(max_examples=1000, stateful_step_count=15, deadline=None)
