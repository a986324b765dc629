"""Look-up of a snapshot's manifest: the mirrors in order, until one has it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from p2pmodel.config.sections.mirrors import OriginSettings
from p2pmodel.core import notes
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import AccessDenied, IntegrityError, P2PModelError, RepoNotFound, Unavailable
from p2pmodel.origin.clock import Clock
from p2pmodel.origin.failures import Failed, Refused
from p2pmodel.origin.mirrors.mirror import Mirror
from p2pmodel.origin.mirrors.pool import MirrorNotes
from p2pmodel.origin.verdict import TOKEN_HINT, hint_for, listed, most_specific

Fetch = Callable[[Mirror, Reference], Awaitable[Manifest]]

_RETRY_FOR = 30.0
_PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class Listing:
    """A manifest, and the name of the mirror that listed it."""

    manifest: Manifest
    mirror: str


class Lookup:
    """One look-up. A busy mirror (a retryable HTTP status) is asked again for up to `_RETRY_FOR` seconds, if no other
    mirror has the manifest."""

    def __init__(
        self, fetch: Fetch, mirrors: Sequence[Mirror], settings: OriginSettings, clock: Clock, notes: MirrorNotes
    ) -> None:
        self._fetch = fetch
        self._mirrors = mirrors
        self._settings = settings
        self._clock = clock
        self._notes = notes
        self._reasons: dict[str, str] = {}
        self._kinds: dict[str, type[P2PModelError]] = {}

    async def listing(self, ref: Reference) -> Listing:
        """The listing of the first mirror that has one. Raises the most specific of their errors."""
        pending = list(self._mirrors)
        until = self._clock.now() + min(_RETRY_FOR, self._settings.patience)
        while True:
            busy: dict[Mirror, float] = {}
            for mirror in pending:
                try:
                    return Listing(await self._fetch(mirror, ref), mirror.name)
                except Failed as failure:
                    self._note(mirror, failure.reason, Unavailable)
                    if failure.status is not None:
                        busy[mirror] = failure.wait or _PAUSE
                except Refused as refusal:
                    self._note(mirror, refusal.reason, refusal.error)
            pause = min(busy.values(), default=0.0)
            if not busy or self._clock.now() + pause > until:
                raise self._verdict(ref)
            await self._clock.sleep(max(pause, _PAUSE))
            pending = list(busy)

    def _note(self, mirror: Mirror, reason: str, kind: type[P2PModelError]) -> None:
        self._reasons[mirror.name] = reason
        self._kinds[mirror.name] = kind
        if len(self._mirrors) > 1:
            self._notes.add(
                notes.warning(
                    "mirror_has_no_manifest", f"mirror {mirror.name} has no manifest: {reason}", mirror=mirror.name
                ),
                "lookup",
                mirror.name,
                reason,
            )

    def _verdict(self, ref: Reference) -> P2PModelError:
        names = [m.name for m in self._mirrors]
        if not names:
            return Unavailable(f"no source for {ref}: no mirror is configured for it", hint="see 'p2pmodel mirrors ls'")
        every = listed(self._reasons, names)
        kind = most_specific(self._kinds.values())
        if kind is Unavailable:
            return Unavailable(f"no mirror answers for {ref} ({every})", hint="check the network and the mirrors")
        if issubclass(kind, AccessDenied):
            return kind(f"no access to {ref} ({every})", hint=hint_for(kind))
        if kind is IntegrityError:
            return kind(f"no mirror has a usable listing of {ref} ({every})")
        anonymous = kind is RepoNotFound and not all(m.has_token for m in self._mirrors)
        return kind(f"{ref} was not found ({every})", hint=f"if it is private, {TOKEN_HINT}" if anonymous else "")
