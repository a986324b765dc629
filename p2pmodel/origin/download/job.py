"""One file's requests to the mirrors: the next mirror, the wait before it, when to give up and with which error."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Protocol

from p2pmodel.core import notes
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.errors import EntryNotFound, P2PModelError, Unavailable, WrongBytes
from p2pmodel.origin.failures import Failed, RangesIgnored, Refused
from p2pmodel.origin.mirrors.health import Choice, choose, team
from p2pmodel.origin.mirrors.mirror import Mirror
from p2pmodel.origin.mirrors.pool import MirrorPool
from p2pmodel.origin.responses import ExpectedRange
from p2pmodel.origin.verdict import verdict


class Suspects:
    """Mirrors with bytes that failed the hash of a piece, by file: of one origin.

    They are suspects until the hash of the whole file shows what was wrong. The hash of a piece comes with a torrent,
    and a torrent may be invented. Only the hash of the whole file is the hub's.
    """

    def __init__(self) -> None:
        self._by_etag: defaultdict[str, dict[str, Mirror]] = defaultdict(dict)

    def add(self, file: ManifestFile, mirror: Mirror) -> None:
        """The bytes of `mirror` for `file` failed the hash of a piece."""
        self._by_etag[file.etag][mirror.name] = mirror

    def of(self, file: ManifestFile) -> frozenset[str]:
        """Names of the suspects: for this file they are asked after the other mirrors."""
        return frozenset(self._by_etag.get(file.etag, ()))

    def take(self, file: ManifestFile) -> tuple[Mirror, ...]:
        """The suspects; afterwards there are none."""
        return tuple(self._by_etag.pop(file.etag, {}).values())


class RangeSink(Protocol):
    """One file assembled from ranges, in any order and possibly over several runs."""

    @property
    def size(self) -> int:
        """Bytes of the whole file."""

    def missing(self) -> list[tuple[int, int]]:
        """(offset, length) of the ranges not written yet; disjoint, ascending."""

    async def write(self, offset: int, data: bytes) -> None:
        """Store `data`. Raises LocalResource if the disk fails."""

    async def digest(self) -> str:
        """Hex etag of the complete file."""

    async def read(self, offset: int, length: int) -> bytes:
        """Bytes written before."""

    async def forget(self, offset: int, length: int) -> None:
        """Make this range missing again."""

    async def discard(self) -> None:
        """Make the whole file missing again."""


NO_RANGES = Refused("it answers a range with the whole file", Unavailable)

_NOTEWORTHY_WAIT = 1.0

Deliver = Callable[[int, bytes], Awaitable[bool]]
"""Takes (offset, data) and returns whether more is wanted."""


class NoMirrorLeft(Exception):
    """No mirror is left to ask, or patience ran out; `MirrorJob.verdict` has the reason."""


class MirrorJob:
    """Requests for bytes of one file. Several of them may run concurrently."""

    def __init__(
        self,
        pool: MirrorPool,
        manifest: Manifest,
        file: ManifestFile,
        *,
        suspects: Suspects | None = None,
        avoided: frozenset[str] = frozenset(),
    ) -> None:
        self._suspects = suspects or Suspects()
        self._avoided = avoided
        self.manifest = manifest
        self.file = file
        self._pool = pool
        self._mirrors = tuple(pool.of(manifest.repo))
        self._rangeless: set[str] = set()
        """Mirrors that answer a range with the whole file."""
        self._only: str | None = None
        self._without: str | None = None
        self._refusals: dict[str, Refused] = {}
        self._reasons: dict[str, str] = {}
        self._current: str | None = None
        self._failing_since: float | None = None
        self._given_up = False
        self._joined: frozenset[str] = frozenset()

    def candidates(self) -> list[Mirror]:
        """The mirrors that this job may ask, in priority order."""
        return [m for m in self._mirrors if self._may_ask(m.name)]

    def has_other(self, mirror: Mirror) -> bool:
        """Whether another mirror may be asked now, before those that only help where no other can."""
        now = self._pool.clock.now()
        others = [m.health for m in self.candidates() if m.name != mirror.name and m.name not in self._rangeless]
        return any(
            not (h.fallback or h.quarantined(now) or h.demoted(now)) and h.ready_at <= now
            for h in others
            if h.name not in self._suspects.of(self.file)
        )

    def ranges_ignored(self, mirror: Mirror) -> bool:
        """Whether `mirror` answered a range with the whole file."""
        return mirror.name in self._rangeless

    def team(self, backlog: int, waited: float) -> list[Mirror]:
        """The mirrors to ask concurrently now, preferred first, without those that need a wait. `waited`: seconds since
        the pull began."""
        now, candidates = self._pool.clock.now(), {m.name: m for m in self.candidates()}
        healths = [m.health for m in candidates.values() if m.name not in self._rangeless]
        names = team(healths, self._pool.rates(), now, backlog=backlog, waited=waited, joined=self._joined)
        for name in names[1:]:
            if name not in self._joined:
                line = f"mirror {name} joins for {self.file.path}: without it that would take longer"
                self._pool.notes.add(notes.info("mirror_joins", line, mirror=name), "joins", name)
        self._joined |= frozenset(names)
        return [candidates[name] for name in names if candidates[name].health.ready_at <= now]

    async def next_mirror(self) -> Mirror:
        """The mirror to ask now; returns after the wait that it needs. Raises NoMirrorLeft."""
        while not self._given_up:
            choice = self._choice()
            if choice is None:
                break
            self._note(choice)
            if not choice.wait:
                return self._pool.named(choice.name)
            await self._pool.clock.sleep(choice.wait)
        raise NoMirrorLeft

    async def attempt(self, mirror: Mirror, wanted: ExpectedRange, deliver: Deliver) -> bool:
        """Wait for a connection to `mirror`, then `request`. False: use `next_mirror`."""
        async with mirror.slots:
            # While this request waited for a connection, other requests may have found that the mirror is down.
            return self._choice() == (mirror.name, 0.0) and await self.request(mirror, wanted, deliver)

    async def request(self, mirror: Mirror, wanted: ExpectedRange, deliver: Deliver) -> bool:
        """Send one request and `deliver` the bytes as they come; the caller holds one of the mirror's slots. Whether
        all bytes came that were wanted."""
        no_bytes = True
        try:
            async with aclosing(self._pool.requests.stream(mirror, wanted)) as chunks:
                async for offset, data in chunks:
                    no_bytes = False
                    if not await deliver(offset, data):
                        break
        except Failed as failure:
            self.failed(mirror, failure, no_bytes=no_bytes)
        except RangesIgnored:
            self._rangeless.add(mirror.name)
        except Refused as refusal:
            self.refuse(mirror, refusal)
        else:
            mirror.served()
            return True
        return False

    def progressed(self) -> None:
        """New bytes came: patience starts again."""
        self._failing_since = None
        self._given_up = False

    def refuse(self, mirror: Mirror, refusal: Refused) -> None:
        """Exclude `mirror` from this job; quarantine it if it sent wrong bytes."""
        if mirror.name in self._refusals:
            return
        if refusal.error is WrongBytes and not mirror.vouches_for(self.file):
            refusal = Refused("its file is another one than the hub's", EntryNotFound)
        self._refusals[mirror.name] = refusal
        self._reasons[mirror.name] = refusal.reason
        mirror.refused(refusal.reason)
        if refusal.error is WrongBytes:
            mirror.corrupted(self._pool.clock.now())
        what = "sent wrong bytes for" if refusal.error is WrongBytes else "is left out for"
        line = f"mirror {mirror.name} {what} {self.file.path}: {refusal.reason}"
        self._pool.notes.add(
            notes.warning("mirror_refused", line, mirror=mirror.name), "refused", mirror.name, refusal.reason
        )

    def suspect(self, mirror: Mirror, refusal: Refused) -> None:
        """Exclude `mirror` from this job, because its bytes fail the hash of a piece. It is not blamed for that yet."""
        self._refusals[mirror.name] = refusal
        self._reasons[mirror.name] = refusal.reason
        mirror.refused(refusal.reason)
        self._suspects.add(self.file, mirror)
        line = f"bytes of mirror {mirror.name} for {self.file.path} do not fit the torrent: {refusal.reason}"
        self._pool.notes.add(
            notes.warning("mirror_suspected", line, mirror=mirror.name), "suspected", mirror.name, self.file.path
        )

    def failed(self, mirror: Mirror, failure: Failed, *, no_bytes: bool) -> None:
        """A request to `mirror` failed; `no_bytes`: without a byte."""
        now, patience = self._pool.clock.now(), self._pool.settings.patience
        bounded = failure if failure.wait is None else replace(failure, wait=min(failure.wait, patience))
        mirror.failed(bounded, now, no_bytes=no_bytes)
        self._reasons[mirror.name] = failure.reason
        self._pool.notes.add(
            notes.warning("mirror_failed", f"mirror {mirror.name} failed: {failure.reason}", mirror=mirror.name),
            "failed",
            mirror.name,
            failure.reason,
        )
        if self._failing_since is None:
            self._failing_since = now
        # Checked only after a failed request, so that a wait that a mirror demanded is followed by a request.
        elif now - self._failing_since >= patience:
            self._given_up = True

    def verdict(self) -> P2PModelError:
        """The error that reports why the file did not come."""
        names = [mirror.name for mirror in self._mirrors]
        return verdict(self.manifest, self.file, names, self._refusals, self._reasons)

    def restrict_to(self, only: Mirror) -> None:
        """From now on ask `only` this mirror; patience starts again."""
        self._only = only.name
        self.progressed()

    @contextmanager
    def without(self, name: str) -> Iterator[None]:
        """While the context lasts, do not ask mirror `name`."""
        self._without = name
        try:
            yield
        finally:
            self._without = None

    def _may_ask(self, name: str) -> bool:
        return name not in self._refusals and self._only in (None, name) and name != self._without

    def _choice(self) -> Choice | None:
        now, healths = self._pool.clock.now(), [m.health for m in self.candidates()]
        suspected = self._suspects.of(self.file)
        healths = [h for h in healths if h.name not in suspected] or healths
        if self._avoided:
            healths = [h for h in healths if h.name not in self._avoided and not h.demoted(now)] or healths
        ranged = [h for h in healths if h.name not in self._rangeless]
        # A mirror without ranges is the last resort: it can neither share a file nor resume one.
        fit = any(not h.demoted(now) and not h.quarantined(now) for h in ranged)
        return choose(ranged if fit else healths, now)

    def _note(self, choice: Choice) -> None:
        name, wait = choice
        before, self._current = self._current, name
        if before is not None and before != name:
            reason = self._reasons.get(before, "")
            why = f" ({before}: {reason})" if reason else ""
            self._pool.notes.add(
                notes.info("mirror_switched", f"going on with mirror {name}{why}", mirror=name), "switch", before, name
            )
        if wait >= _NOTEWORTHY_WAIT:
            reason = self._reasons.get(name, "it failed just now")
            self._pool.notes.add(
                notes.info(
                    "mirror_wait",
                    f"waiting {wait:.0f} s for mirror {name} ({reason})",
                    mirror=name,
                    seconds=round(wait),
                ),
                "wait",
                name,
            )
