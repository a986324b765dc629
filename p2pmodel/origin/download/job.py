"""One job's dealings with the mirrors: whom to ask next, how long to wait, when to give up and with which error."""

from collections.abc import Awaitable, Callable
from contextlib import aclosing

from p2pmodel.core.manifest import Manifest, ManifestFile
from p2pmodel.errors import P2PModelError, WrongBytes
from p2pmodel.origin.failures import Failed, RangesIgnored, Refused
from p2pmodel.origin.mirrors.health import Choice, choose, team
from p2pmodel.origin.mirrors.mirror import Mirror
from p2pmodel.origin.mirrors.pool import MirrorPool
from p2pmodel.origin.responses import ExpectedRange
from p2pmodel.origin.verdict import verdict

_NOTEWORTHY_WAIT = 1.0

Deliver = Callable[[int, bytes], Awaitable[bool]]
"""Takes (offset, data) and says whether more is wanted."""


class NoMirrorLeft(Exception):
    """No mirror is left to ask, or patience is at its end; `MirrorJob.verdict` says why."""


class MirrorJob:
    """Getting bytes of one file. Several requests of a job may run side by side."""

    def __init__(self, fleet: MirrorPool, manifest: Manifest, file: ManifestFile) -> None:
        self.manifest = manifest
        self.file = file
        self.rangeless: set[str] = set()
        """Mirrors that answer a range with the whole file."""
        self.only: str | None = None
        """If set, no other mirror is asked."""
        self.without: str | None = None
        """If set, this mirror is not asked for the time being."""
        self._fleet = fleet
        self._refusals: dict[str, Refused] = {}
        self._reasons: dict[str, str] = {}
        self._current: str | None = None
        self._failing_since: float | None = None
        self._given_up = False
        self._joined: frozenset[str] = frozenset()

    def candidates(self) -> list[Mirror]:
        """The mirrors still worth asking, in priority order."""
        return [m for m in self._fleet.mirrors if self._may_ask(m.name)]

    def _may_ask(self, name: str) -> bool:
        return name not in self._refusals and self.only in (None, name) and name != self.without

    def team(self, backlog: int, waited: float) -> list[Mirror]:
        """The mirrors to ask side by side now, the preferred first; those that have to be waited for are not among
        them. `waited`: seconds since the pull began."""
        now, candidates = self._fleet.clock.now(), {m.name: m for m in self.candidates()}
        healths = [m.health for m in candidates.values() if m.name not in self.rangeless]
        rates = self._fleet.rates()
        names = team(healths, rates, now, backlog=backlog, waited=waited, joined=self._joined)
        for name in names[1:]:
            if name not in self._joined:
                line = f"mirror {name} joins for {self.file.path}: without it that would take longer"
                self._fleet.notes.say(line, "joins", name)
        self._joined |= frozenset(names)
        return [candidates[name] for name in names if candidates[name].health.ready_at <= now]

    async def next_mirror(self) -> Mirror:
        """The mirror to ask now, after the wait it needs. Raises NoneLeft."""
        while not self._given_up:
            choice = self._choice()
            if choice is None:
                break
            self._note(choice)
            if not choice.wait:
                return next(m for m in self._fleet.mirrors if m.name == choice.name)
            await self._fleet.clock.sleep(choice.wait)
        raise NoMirrorLeft

    async def attempt(self, mirror: Mirror, wanted: ExpectedRange, deliver: Deliver) -> bool:
        """Ask `mirror` once and `deliver` as it comes. False if not all that is wanted came: ask `next_mirror`."""
        async with mirror.slots:
            # While this request queued for a connection, others may have found out that the mirror is down.
            return self._choice() == (mirror.name, 0.0) and await self.ask(mirror, wanted, deliver)

    async def ask(self, mirror: Mirror, wanted: ExpectedRange, deliver: Deliver) -> bool:
        """Like `attempt`, for who holds one of the mirror's slots."""
        dry = True
        try:
            async with aclosing(self._fleet.requests.stream(mirror, wanted)) as pieces:
                async for offset, data in pieces:
                    dry = False
                    if not await deliver(offset, data):
                        break
        except Failed as failure:
            self.failed(mirror, failure, dry=dry)
        except RangesIgnored:
            self.rangeless.add(mirror.name)
        except Refused as refusal:
            self.refuse(mirror, refusal)
        else:
            mirror.health = mirror.health.succeeded()
            return True
        return False

    def progressed(self) -> None:
        """Bytes that were missing have come: patience starts anew."""
        self._failing_since = None
        self._given_up = False

    def refuse(self, mirror: Mirror, refusal: Refused) -> None:
        """Do not ask `mirror` again in this job."""
        if mirror.name in self._refusals:
            return
        self._refusals[mirror.name] = refusal
        self._reasons[mirror.name] = refusal.reason
        mirror.reason = refusal.reason
        if refusal.error is WrongBytes:
            mirror.lied(self._fleet.clock.now())
        what = "sent wrong bytes for" if refusal.error is WrongBytes else "is left out for"
        line = f"mirror {mirror.name} {what} {self.file.path}: {refusal.reason}"
        self._fleet.notes.say(line, "refused", mirror.name, refusal.reason)

    def verdict(self) -> P2PModelError:
        """The error that tells the user why the file did not come."""
        names = [m.name for m in self._fleet.mirrors]
        return verdict(self.manifest, self.file, names, self._refusals, self._reasons)

    def start_over(self, only: Mirror) -> None:
        """Go on with `only`, with fresh patience."""
        self.only = only.name
        self.progressed()

    def _choice(self) -> Choice | None:
        now, healths = self._fleet.clock.now(), [m.health for m in self.candidates()]
        ranged = [h for h in healths if h.name not in self.rangeless]
        # Who sends only whole files is asked when nobody else is fit to: it cannot share, and cannot resume.
        fit = any(not h.demoted(now) and not h.quarantined(now) for h in ranged)
        return choose(ranged if fit else healths, now)

    def failed(self, mirror: Mirror, failure: Failed, *, dry: bool) -> None:
        """A request to `mirror` failed; `dry`: without a byte."""
        now, patience = self._fleet.clock.now(), self._fleet.settings.patience
        wait = None if failure.wait is None else min(failure.wait, patience)
        mirror.failed(now, dry=dry, wait=wait, slow=failure.slow)
        self._reasons[mirror.name] = mirror.reason = failure.reason
        self._fleet.notes.say(f"mirror {mirror.name} failed: {failure.reason}", "failed", mirror.name, failure.reason)
        if self._failing_since is None:
            self._failing_since = now
        # Judged only after a request failed, so that time spent waiting as a mirror asked is followed by a try.
        elif now - self._failing_since >= patience:
            self._given_up = True

    def _note(self, choice: Choice) -> None:
        name, wait = choice
        before, self._current = self._current, name
        if before is not None and before != name:
            reason = self._reasons.get(before, "")
            why = f" ({before}: {reason})" if reason else ""
            self._fleet.notes.say(f"going on with mirror {name}{why}", "switch", before, name)
        if wait >= _NOTEWORTHY_WAIT:
            reason = self._reasons.get(name, "it failed just now")
            self._fleet.notes.say(f"waiting {wait:.0f} s for mirror {name} ({reason})", "wait", name)
