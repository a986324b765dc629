"""One job's dealings with the mirrors: whom to ask next, how long to wait, when to give up and with which error."""

from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from p2pmodel.domain.manifest import Manifest, ManifestFile
from p2pmodel.domain.ranking import Choice, choose
from p2pmodel.errors import P2PModelError, WrongBytes
from p2pmodel.origin.clock import Clock
from p2pmodel.origin.failures import Failed, RangesIgnored, Refused
from p2pmodel.origin.mirror import Mirror
from p2pmodel.origin.notes import Notes
from p2pmodel.origin.requests import RangeRequests
from p2pmodel.origin.responses import Wanted
from p2pmodel.origin.verdict import verdict
from p2pmodel.settings import OriginSettings

_NOTEWORTHY_WAIT = 1.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """What all jobs share. `suspects`: by commit, the mirrors that lied about it; they are asked last."""

    mirrors: tuple[Mirror, ...]
    requests: RangeRequests
    settings: OriginSettings
    clock: Clock
    notes: Notes
    suspects: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


class NoneLeft(Exception):
    """No mirror is left to ask, or patience is at its end; `Job.verdict` says why."""


class Job:
    """Getting bytes of one file. Several requests of a job may run side by side."""

    def __init__(self, fleet: Fleet, manifest: Manifest, file: ManifestFile) -> None:
        self.manifest = manifest
        self.file = file
        self.rangeless: set[str] = set()
        """Mirrors that answer a range with the whole file."""
        self.only: str | None = None
        """If set, no other mirror is asked."""
        self._fleet = fleet
        self._refusals: dict[str, Refused] = {}
        self._reasons: dict[str, str] = {}
        self._current: str | None = None
        self._failing_since: float | None = None
        self._given_up = False

    def candidates(self) -> list[Mirror]:
        """The mirrors still worth asking, in priority order."""
        return [m for m in self._fleet.mirrors if m.name not in self._refusals and self.only in (None, m.name)]

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
        raise NoneLeft

    async def attempt(self, mirror: Mirror, wanted: Wanted, deliver: Callable[[int, bytes], Awaitable[None]]) -> bool:
        """Ask `mirror` once and `deliver` (offset, data) as it comes. False if not all came: ask `next_mirror`."""
        async with mirror.slots:
            # While this request queued for a connection, others may have found out that the mirror is down.
            return self._choice() == (mirror.name, 0.0) and await self._attempt(mirror, wanted, deliver)

    async def _attempt(self, mirror: Mirror, wanted: Wanted, deliver: Callable[[int, bytes], Awaitable[None]]) -> bool:
        dry = True
        try:
            async with aclosing(self._fleet.requests.stream(mirror, wanted)) as pieces:
                async for offset, data in pieces:
                    await deliver(offset, data)
                    dry = False
        except Failed as failure:
            self._failed(mirror, failure, dry=dry)
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
        if refusal.error is WrongBytes:
            self._fleet.suspects[self.manifest.commit].add(mirror.name)
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
        healths = [m.health for m in self.candidates()]
        return choose(healths, self._fleet.clock.now(), suspects=self._fleet.suspects[self.manifest.commit])

    def _failed(self, mirror: Mirror, failure: Failed, *, dry: bool) -> None:
        now, patience = self._fleet.clock.now(), self._fleet.settings.patience
        wait = None if failure.wait is None else min(failure.wait, patience)
        mirror.health = mirror.health.failed(now, dry=dry, wait=wait, slow=failure.slow)
        self._reasons[mirror.name] = failure.reason
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
