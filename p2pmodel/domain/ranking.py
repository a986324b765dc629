"""Which mirror to ask now: priority order, bent by what each mirror has just done. Pure; the clock is passed in.

The rules:
1. A mirror excluded for the job (it lied, or does not have the file) is never asked.
2. A mirror that failed keeps its place for `_PATIENT_ROUNDS` rounds: retried after a backoff, not passed over.
3. Then it is demoted for a rest: asked only when every other usable mirror is demoted too.
4. A mirror that said how long it wants to be left alone is left alone that long; a long wait demotes it meanwhile.
5. Among the undemoted, suspects (they lied about this snapshot before) come last, then priority order decides.
6. Among the demoted, the one ready first.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

_PATIENT_ROUNDS = 3
_BACKOFF = 0.25
_MAX_BACKOFF = 4.0
_SHORT_WAIT = 2.0
_REST = 30.0
_MAX_REST = 300.0


@dataclass(frozen=True, slots=True)
class Health:
    """How a mirror's transport fares. `rank` is its place in the priority order; times are seconds of one clock."""

    name: str
    rank: int
    rounds: int = 0
    """Failed rounds since the last whole answer."""
    dry_rounds: int = 0
    """Failed rounds since the last byte."""
    rests: int = 0
    ready_at: float = 0.0
    demoted_until: float = 0.0

    def demoted(self, now: float) -> bool:
        """Whether others go first."""
        return now < self.demoted_until

    def failed(self, now: float, *, dry: bool, wait: float | None = None, slow: bool = False) -> "Health":
        """After a request failed at `now`.

        `dry`: it brought no byte. `wait`: seconds the mirror asked to be left alone. `slow`: the failure itself took
        a whole timeout, so another round is not worth waiting for. Requests that run side by side fail together:
        what fails while the mirror is already backing off belongs to the same round.
        """
        same_round = now < self.ready_at
        if same_round and wait is None:
            return self
        rounds = self.rounds + (not same_round)
        dry_rounds = self.dry_rounds + (not same_round) if dry else 0
        backoff = min(_MAX_BACKOFF, _BACKOFF * 2 ** min(16, max(0, dry_rounds - 1)))
        ready_at = max(self.ready_at, now + (backoff if wait is None else wait))
        demoted_until, rests = self.demoted_until, self.rests
        if wait is not None and wait > _SHORT_WAIT:
            demoted_until = max(demoted_until, ready_at)
        if not same_round and (slow or rounds >= _PATIENT_ROUNDS):
            demoted_until = max(demoted_until, now + min(_MAX_REST, _REST * 2 ** min(8, rests)))
            rests += 1
        return Health(self.name, self.rank, rounds, dry_rounds, rests, ready_at, demoted_until)

    def succeeded(self) -> "Health":
        """After a whole answer."""
        if not self.rounds and not self.demoted_until:
            return self
        return Health(self.name, self.rank)


class Choice(NamedTuple):
    """The mirror to ask, and the seconds to wait before asking it."""

    name: str
    wait: float


def choose(
    mirrors: Iterable[Health], now: float, *, excluded: Collection[str] = (), suspects: Collection[str] = ()
) -> Choice | None:
    """The mirror to ask next, or None when every one is excluded."""

    def key(mirror: Health) -> tuple[bool, float, bool, int]:
        demoted = mirror.demoted(now)
        return demoted, max(0.0, mirror.ready_at - now) if demoted else 0.0, mirror.name in suspects, mirror.rank

    usable = [m for m in mirrors if m.name not in excluded]
    best = min(usable, key=key, default=None)
    return Choice(best.name, max(0.0, best.ready_at - now)) if best else None
