"""Look-up of a snapshot's manifest: the mirrors in order, until one has it."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from p2pmodel.config.settings import MirrorSettings, OriginSettings
from p2pmodel.core import notes
from p2pmodel.core.manifest import Manifest
from p2pmodel.core.names import Reference
from p2pmodel.errors import AccessDenied, P2PModelError, RepoNotFound, Unavailable
from p2pmodel.origin.clock import Clock
from p2pmodel.origin.failures import Failed, Refused
from p2pmodel.origin.mirrors.mirror import Mirror
from p2pmodel.origin.mirrors.pool import MirrorNotes
from p2pmodel.origin.verdict import TOKEN_HINT, hint_for, listed, most_specific

T = TypeVar("T")
Fetch = Callable[[MirrorSettings, Reference, OriginSettings], Manifest]

_RETRY_FOR = 30.0
_PAUSE = 1.0


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

    async def manifest(self, ref: Reference) -> Manifest:
        """The manifest from the first mirror that has it. Raises the most specific of their errors."""
        pending = list(self._mirrors)
        until = self._clock.now() + min(_RETRY_FOR, self._settings.patience)
        while True:
            busy: dict[Mirror, float] = {}
            for mirror in pending:
                try:
                    return await self._ask(mirror, ref)
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

    async def _ask(self, mirror: Mirror, ref: Reference) -> Manifest:
        # The client bounds each read, not the whole response, which a mirror may send byte by byte.
        bound = self._settings.connect_timeout + 2 * self._settings.read_timeout
        try:
            async with asyncio.timeout(bound):
                return await _in_thread(lambda: self._fetch(mirror.settings, ref, self._settings))
        except TimeoutError:
            raise Failed(f"no complete response within {bound:.0f} s") from None

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
            return Unavailable(f"no source for {ref}: no mirror is configured")
        every = listed(self._reasons, names)
        kind = most_specific(self._kinds.values())
        if kind is Unavailable:
            return Unavailable(f"no mirror answers for {ref} ({every})", hint="check the network and the mirrors")
        if issubclass(kind, AccessDenied):
            return kind(f"no access to {ref} ({every})", hint=hint_for(kind))
        anonymous = kind is RepoNotFound and not all(m.has_token for m in self._mirrors)
        return kind(f"{ref} was not found ({every})", hint=f"if it is private, {TOKEN_HINT}" if anonymous else "")


async def _in_thread(call: Callable[[], T]) -> T:
    """Run `call` in a daemon thread, which unlike an executor's delays neither Ctrl-C nor the interpreter's exit."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        if not future.done():
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result: T | None = None
        error: Exception | None = RuntimeError("a look-up failed: see the traceback of its thread")
        try:
            result, error = call(), None
        except (Failed, Refused, P2PModelError) as failure:
            error = failure
        finally:
            with suppress(RuntimeError):  # the loop is closed, so no task waits
                loop.call_soon_threadsafe(finish, result, error)

    threading.Thread(target=run, name="hub-metadata", daemon=True).start()
    return await future
