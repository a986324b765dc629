"""Which snapshots leave a cache so that it keeps its budget. Pure: facts and the time come in, a plan goes out.

Invariants, to re-check when editing:
1. A snapshot with a reason to stay is never in the plan, whatever the budget and its age.
2. Within the budget only expired snapshots leave.
3. Above it the snapshots used longest ago leave, until the low mark is reached; one that would free nothing stays.
4. Contents are shared: a removal frees only what no snapshot that stays has.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from p2pmodel.core.content.names import RepoId

PINNED = "pinned"
MOVED = "on another disk"
FOLLOWED = "on a follow list"
LOADING = "being downloaded"
READ = "being read"
SERVED = "used by another process of p2pmodel"
LAST_COPY = "the last copy in the swarm"
UNKNOWN = "no other copy is known"


@dataclass(frozen=True, slots=True)
class SnapshotFacts:
    """What protects a snapshot. `copies`: whole copies on other nodes, None if unknown. `in_swarm`: coordinators are
    configured. `on_mirror`: a mirror has listed the same files."""

    pinned: bool = False
    moved: bool = False
    followed: bool = False
    loading: bool = False
    read: bool = False
    served: bool = False
    copies: int | None = None
    in_swarm: bool = False
    on_mirror: bool = False


def protection(facts: SnapshotFacts) -> str:
    """Why a snapshot stays; "" if it may leave.

    Without coordinators there is no swarm: a snapshot may leave if a mirror has it.
    """
    reasons = {
        PINNED: facts.pinned,
        MOVED: facts.moved,
        FOLLOWED: facts.followed,
        LOADING: facts.loading,
        READ: facts.read,
        SERVED: facts.served,
        LAST_COPY: facts.in_swarm and facts.copies == 0,
        UNKNOWN: facts.copies is None if facts.in_swarm else not facts.on_mirror,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


@dataclass(frozen=True, slots=True)
class HeldSnapshot:
    """A snapshot on disk. `contents`: bytes on disk by content, which other snapshots may have, too. `used`: seconds
    since 1970. `kept`: why it stays, "" if it may leave."""

    repo: RepoId
    commit: str
    contents: Mapping[str, int]
    used: float
    kept: str = ""


@dataclass(frozen=True, slots=True)
class SpaceRules:
    """Above `budget` bytes (None: no limit) snapshots leave down to `low` bytes; those not used for `unused` seconds
    leave in any case (0: never)."""

    budget: int | None = None
    low: int = 0
    unused: float = 0.0


@dataclass(frozen=True, slots=True)
class PlannedRemoval:
    """A snapshot of a plan. `freed`: bytes that its removal frees after those before it; `expired`: it leaves for its
    age, not for the space."""

    snapshot: HeldSnapshot
    freed: int
    expired: bool


@dataclass(frozen=True, slots=True)
class SpacePlan:
    """The snapshots that leave, in this order; the bytes before and after. `over`: bytes above the budget that nothing
    may free."""

    leaving: tuple[PlannedRemoval, ...]
    before: int
    after: int
    over: int = 0


def planned(held: Sequence[HeldSnapshot], total: int, rules: SpaceRules, now: float) -> SpacePlan:
    """The plan for a cache of `total` bytes."""
    users = Counter((snapshot.repo, content) for snapshot in held for content in snapshot.contents)
    fixed = {(each.repo, content) for each in held if each.kept for content in each.contents}
    leaving: list[PlannedRemoval] = []
    left = total
    oldest = sorted((each for each in held if not each.kept), key=lambda each: (each.used, each.repo, each.commit))
    young = []
    for snapshot in oldest:
        if rules.unused and now - snapshot.used > rules.unused:
            freed = _release(snapshot, users)
            leaving.append(PlannedRemoval(snapshot, freed, expired=True))
            left -= freed
        else:
            young.append(snapshot)
    if rules.budget is not None and left > rules.budget:
        for snapshot in young:
            if left <= min(rules.low, rules.budget):
                break
            if _may_free(snapshot, fixed):
                freed = _release(snapshot, users)
                leaving.append(PlannedRemoval(snapshot, freed, expired=False))
                left -= freed
    over = max(0, left - rules.budget) if rules.budget is not None else 0
    return SpacePlan(tuple(leaving), total, left, over)


def own_bytes(snapshot: HeldSnapshot, held: Iterable[HeldSnapshot]) -> int:
    """Bytes that the removal of `snapshot` alone frees."""
    others = {
        content for each in held if each.repo == snapshot.repo and each is not snapshot for content in each.contents
    }
    return sum(size for content, size in snapshot.contents.items() if content not in others)


def _may_free(snapshot: HeldSnapshot, fixed: set[tuple[RepoId, str]]) -> bool:
    """Whether it has bytes that no protected snapshot has."""
    return any(size and (snapshot.repo, content) not in fixed for content, size in snapshot.contents.items())


def _release(snapshot: HeldSnapshot, users: Counter[tuple[RepoId, str]]) -> int:
    freed = 0
    for content, size in snapshot.contents.items():
        users[snapshot.repo, content] -= 1
        freed += 0 if users[snapshot.repo, content] else size
    return freed
