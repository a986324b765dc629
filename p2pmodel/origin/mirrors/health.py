"""Which mirrors to ask now: priority order, changed by recent failures. Pure; the clock is passed in.

States (`Health.state`):

    healthy      asked in priority order
    slow         clearly slower than the best: asked after the healthy ones, regardless of priority
    failing      its last requests failed: retried after a backoff; after `_PATIENT_ROUNDS` rounds others go first
    quarantined  it sent wrong bytes: asked only if no other mirror can be
    unused       it was not asked yet; used as a healthy one
    trial        its rest or quarantine is over, without a good response since: one request at a time

The rules for one request (`choose`):
1. A mirror excluded for the job (it sent wrong bytes, or lacks the file) is never asked.
2. A mirror that failed keeps its place for `_PATIENT_ROUNDS` rounds: it is retried after a backoff.
3. Then it is demoted for a rest: asked only if every other usable mirror is demoted too.
4. A wait that a mirror demands (Retry-After) is kept; a long one demotes the mirror meanwhile.
5. Quarantined mirrors come last; fallbacks after all others that are not demoted; slow ones after the quick.
6. Then priority order decides. Among the demoted, the one ready first.

The rule for a transfer (`team`): the mirrors in that order; each joins when those before it would take longer than
`_JOIN_SECONDS` for the rest. A mirror that joined stays. Quarantined, demoted and fallback mirrors never join others.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from p2pmodel.core.backoff import doubled

_PATIENT_ROUNDS = 3
_BACKOFF = 0.25
_MAX_BACKOFF = 4.0
_SHORT_WAIT = 2.0
_REST = 30.0
_MAX_REST = 300.0
_QUARANTINE = 600.0
_MAX_QUARANTINE = 86400.0
_SLOW_BELOW = 0.25
_QUICK_ABOVE = 0.5
"""Shares of the best mirror's rate; the gap between the two prevents flapping."""

_JOIN_SECONDS = 1.0
_GRACE = 0.3
"""Seconds in which a transfer's first mirror can show its rate before others join."""


class State(StrEnum):
    """The state of a mirror, as above."""

    HEALTHY = "healthy"
    SLOW = "slow"
    FAILING = "failing"
    QUARANTINED = "quarantined"
    TRIAL = "trial"
    UNUSED = "unused"


@dataclass(frozen=True, slots=True)
class Health:
    """Recent failures of a mirror. `rank` is its place in the priority order; times are seconds of one clock."""

    name: str
    rank: int
    fallback: bool = False
    """Whether it is for the case that no other mirror can be used."""
    rounds: int = 0
    """Failed rounds since the last complete response."""
    rounds_without_bytes: int = 0
    """Failed rounds since the last byte."""
    rests: int = 0
    ready_at: float = 0.0
    demoted_until: float = 0.0
    corruptions: int = 0
    """Times it sent wrong bytes since its bytes last passed a hash."""
    quarantined_until: float = 0.0
    slow: bool = False

    def demoted(self, now: float) -> bool:
        """Whether others go first."""
        return now < self.demoted_until

    def quarantined(self, now: float) -> bool:
        """Whether it is asked only if no other mirror can be."""
        return now < self.quarantined_until

    def state(self, now: float) -> State:
        """The state at `now`."""
        if self.quarantined(now):
            return State.QUARANTINED
        if self.demoted(now) or now < self.ready_at:
            return State.FAILING
        if self.corruptions or self.rests:
            return State.TRIAL
        if self.rounds:
            return State.FAILING
        return State.SLOW if self.slow else State.HEALTHY

    def failed(self, now: float, *, no_bytes: bool, wait: float | None = None, slow: bool = False) -> "Health":
        """After a request failed at `now`.

        `no_bytes`: no byte came. `wait`: seconds that the mirror demanded. `slow`: the failure took a whole timeout, so
        the wait for another round is not worthwhile. Concurrent requests fail together: a failure during the backoff
        belongs to the same round."""
        same_round = now < self.ready_at
        if same_round and wait is None:
            return self
        rounds = self.rounds + (not same_round)
        rounds_without_bytes = self.rounds_without_bytes + (not same_round) if no_bytes else 0
        backoff = doubled(_BACKOFF, rounds_without_bytes - 1, _MAX_BACKOFF)
        ready_at = max(self.ready_at, now + (backoff if wait is None else wait))
        demoted_until, rests = self.demoted_until, self.rests
        if wait is not None and wait > _SHORT_WAIT:
            demoted_until = max(demoted_until, ready_at)
        # On trial a single failed round is enough.
        if not same_round and (slow or rests or rounds >= _PATIENT_ROUNDS):
            demoted_until = max(demoted_until, now + doubled(_REST, rests, _MAX_REST))
            rests += 1
        return replace(
            self,
            rounds=rounds,
            rounds_without_bytes=rounds_without_bytes,
            rests=rests,
            ready_at=ready_at,
            demoted_until=demoted_until,
        )

    def succeeded(self) -> "Health":
        """After a complete response. Its bytes may still be wrong: see `verified`."""
        if not self.rounds and not self.rests and not self.demoted_until:
            return self
        return replace(self, rounds=0, rounds_without_bytes=0, rests=0, ready_at=0.0, demoted_until=0.0)

    def corrupted(self, now: float) -> "Health":
        """After it sent wrong bytes. The quarantine doubles each time without verified bytes in between."""
        if self.quarantined(now):
            return self
        until = now + doubled(_QUARANTINE, self.corruptions, _MAX_QUARANTINE)
        return replace(self, corruptions=self.corruptions + 1, quarantined_until=until)

    def verified(self, now: float) -> "Health":
        """After its bytes passed the hash of their file or piece: ends a trial, not a quarantine."""
        return (
            self
            if self.quarantined(now) or not self.corruptions
            else replace(self, corruptions=0, quarantined_until=0.0)
        )

    def compared(self, rate: float | None, best: float | None) -> "Health":
        """After a comparison of its rate with the best mirror's, in bytes a second, None for unknown."""
        if rate is None or not best:
            return self
        slow = rate < best * (_QUICK_ABOVE if self.slow else _SLOW_BELOW)
        return self if slow == self.slow else replace(self, slow=slow)


class Choice(NamedTuple):
    """The mirror to ask, and the seconds to wait before asking it."""

    name: str
    wait: float


def ordered(mirrors: Iterable[Health], now: float) -> list[Health]:
    """The mirrors in the order in which to ask them."""

    def key(mirror: Health) -> tuple[bool, bool, float, bool, bool, int]:
        demoted = mirror.demoted(now)
        wait = max(0.0, mirror.ready_at - now) if demoted else 0.0
        return mirror.quarantined(now), demoted, wait, mirror.fallback, mirror.slow, mirror.rank

    return sorted(mirrors, key=key)


def choose(mirrors: Iterable[Health], now: float, *, excluded: Collection[str] = ()) -> Choice | None:
    """The mirror to ask next, or None when every one is excluded."""
    usable = ordered((m for m in mirrors if m.name not in excluded), now)
    return Choice(usable[0].name, max(0.0, usable[0].ready_at - now)) if usable else None


def team(
    mirrors: Iterable[Health],
    rates: Mapping[str, float | None],
    now: float,
    *,
    backlog: int,
    waited: float,
    joined: Collection[str] = (),
) -> tuple[str, ...]:
    """Names of the mirrors that a transfer asks at once, the preferred first.

    `rates`: bytes a second. `backlog`: bytes still to come. `waited`: seconds since the transfer began. `joined`:
    mirrors of the team so far.
    """
    usable = ordered(mirrors, now)
    chosen: list[str] = []
    total = 0.0
    for mirror in usable:
        if chosen and (mirror.quarantined(now) or mirror.demoted(now) or mirror.fallback):
            break
        if chosen and mirror.name not in joined and backlog <= total * _JOIN_SECONDS:
            continue
        chosen.append(mirror.name)
        rate = rates.get(mirror.name)
        if mirror.ready_at <= now:
            # A mirror without an estimate counts as quick enough until the grace time is over.
            total += rate if rate is not None else (float("inf") if waited < _GRACE else 0.0)
    return tuple(chosen)
