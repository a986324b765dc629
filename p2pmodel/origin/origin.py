"""The origin: everything that comes from HTTP mirrors, in priority order, checked, counted and explained."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Self

from p2pmodel.config.settings import MirrorSettings, OriginSettings
from p2pmodel.core.manifest import Manifest, ManifestFile
from p2pmodel.core.names import Reference
from p2pmodel.errors import InvalidInput
from p2pmodel.origin.clock import Clock
from p2pmodel.origin.download.download import FileDownload
from p2pmodel.origin.download.job import MirrorJob
from p2pmodel.origin.download.range_read import RangeRead
from p2pmodel.origin.download.sink import RangeSink
from p2pmodel.origin.lookup import Fetch, Lookup
from p2pmodel.origin.mirrors.health import ordered
from p2pmodel.origin.mirrors.mirror import compare, mirrors_of
from p2pmodel.origin.mirrors.notes import MirrorNotes
from p2pmodel.origin.mirrors.pace import PullPace
from p2pmodel.origin.mirrors.pool import MirrorPool
from p2pmodel.origin.mirrors.probes import Probes
from p2pmodel.origin.mirrors.standing import MirrorCounters, MirrorStatus, standing_of
from p2pmodel.origin.mirrors.state_file import recall, remember
from p2pmodel.origin.relay.answer import RelayAnswer
from p2pmodel.origin.relay.relay import Relay
from p2pmodel.origin.relay.request import RelayRequest
from p2pmodel.origin.requests import RangeRequests, new_session

_REMEMBER_EVERY = 30.0


def _ignore(_: object) -> None:
    pass


class Origin:
    """The mirrors over one connection pool. `async with` opens and closes it.

    `on_note` gets one line whenever a mirror is passed over, waited for or left out. `pace` bounds them all together,
    instead of each by its settings.
    """

    def __init__(
        self,
        mirrors: Sequence[MirrorSettings],
        settings: OriginSettings,
        *,
        on_note: Callable[[str], None] = _ignore,
        clock: Clock | None = None,
        pace: PullPace | None = None,
    ) -> None:
        self._mirrors = mirrors_of(mirrors, pace)
        self._settings = settings
        self._clock = clock or Clock()
        self._notes = MirrorNotes(on_note, self._clock)
        self._remembered_at = self._clock.now()

    def __repr__(self) -> str:
        return f"Origin({list(self._mirrors)!r})"

    async def __aenter__(self) -> Self:
        self._session = new_session(self._settings)
        if self._settings.state_dir:
            await asyncio.to_thread(recall, self._settings.state_dir, self._mirrors, self._clock)
        on_rate = partial(compare, self._mirrors)
        requests = RangeRequests(self._session, self._clock, lambda: on_rate(self._clock.now()))
        self._fleet = MirrorPool(self._mirrors, requests, self._settings, self._clock, self._notes)
        self._probes = Probes(self._fleet)
        self._relay = Relay(self._fleet)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._probes.close()
        await self._session.close()
        await self._remember()

    async def _remember(self) -> None:
        self._remembered_at = self._clock.now()
        folder = self._settings.state_dir
        if folder and self._mirrors:
            try:
                await asyncio.to_thread(remember, folder, self._mirrors, self._clock)
            except OSError as error:
                self._notes.say(f"cannot remember how the mirrors fare in {folder}: {error.strerror}", "remember")

    @property
    def bytes_by_mirror(self) -> Mapping[str, int]:
        """Payload bytes received so far, by mirror name; bytes that turned out wrong count too."""
        return {m.name: m.received for m in self._mirrors}

    @property
    def wasted_bytes(self) -> int:
        """Payload bytes received so far that were of no use: they came twice, or were wrong."""
        return sum(m.wasted for m in self._mirrors)

    @property
    def heard_at(self) -> float:
        """When any mirror was last asked or heard of, by `time.monotonic`."""
        return max((m.heard_at for m in self._mirrors), default=0.0)

    def tallies(self) -> Mapping[str, MirrorCounters]:
        """What each mirror did so far, by name."""
        return {m.name: MirrorCounters(m.received, m.wasted, m.failovers, m.quarantines) for m in self._mirrors}

    def standings(self) -> tuple[MirrorStatus, ...]:
        """How each mirror is seen now, in priority order."""
        now = self._clock.now()
        return tuple(standing_of(m, now) for m in self._mirrors)

    async def manifest(self, ref: Reference) -> Manifest:
        """What `ref` consists of, from the first mirror that has it, in the order in which they are worth asking.

        Raises GatedRepo, AccessDenied, RevisionNotFound, RepoNotFound, IntegrityError (a listing that cannot be
        used), or Unavailable naming every mirror with its reason.
        """
        by_name = {m.name: m for m in self._mirrors}
        mirrors = [by_name[h.name] for h in ordered((m.health for m in self._mirrors), self._clock.now())]
        return await Lookup(_fetch_manifest, mirrors, self._settings, self._clock, self._notes).manifest(ref)

    def relay(self, question: RelayRequest) -> AbstractAsyncContextManager[RelayAnswer]:
        """The mirrors' answer to a client's request, as it is: see `Relay.ask`."""
        return self._relay.ask(question)

    async def probe(self, manifest: Manifest, file: ManifestFile) -> None:
        """Ask every mirror for the first 256 KiB of `file`, for `standings` to tell how they fare. Raises nothing:
        what fails is a mirror's state and reason."""
        await self._probes.all(manifest, file)

    async def pull(
        self,
        manifest: Manifest,
        file: ManifestFile,
        sink: RangeSink,
        *,
        on_bytes: Callable[[int], None] = _ignore,
        ranges_only: bool = False,
    ) -> list[str]:
        """Fill `sink` with what it misses of `file`; it returns once `sink.digest()` is the file's etag.

        `ranges_only`: leave out mirrors that answer a range with the whole file.

        Returns the names of the mirrors whose bytes came now; what an earlier run left is in nobody's name.
        `on_bytes` gets the size of each write. Cancelling keeps what was written. Raises WrongBytes (naming mirror,
        file and expectation), GatedRepo, AccessDenied, NotFound, Unavailable (naming every mirror with its
        last reason, after `patience` seconds without progress), and what the sink raises.
        """
        sources = await FileDownload(
            self._fleet, MirrorJob(self._fleet, manifest, file), sink, on_bytes, ranges_only=ranges_only
        ).run()
        if self._clock.now() - self._remembered_at >= _REMEMBER_EVERY:
            await self._remember()
        return sources

    async def read(
        self,
        manifest: Manifest,
        file: ManifestFile,
        offset: int,
        length: int,
        *,
        accept: Callable[[bytes], bool],
    ) -> bytes:
        """`length` bytes of `file` from `offset`, in one request to one mirror, that `accept` finds right.

        `accept` is a pure check and runs in a thread; a mirror whose bytes it refuses is left out and the next is
        asked. Raises as `pull` does.
        """
        if not (offset >= 0 and 0 < length <= file.size - offset):
            raise ValueError(f"bytes {offset}-{offset + length} are outside {file.path} ({file.size} bytes)")
        self._probes.start_due(manifest, file)
        return await RangeRead(MirrorJob(self._fleet, manifest, file), self._clock, offset, length, accept).run()


async def get_ready_to_ask() -> None:
    """Let the first question be answered as quickly as all others. If that fails, the first question says why."""
    with suppress(InvalidInput):
        await asyncio.to_thread(_import_metadata)


def _fetch_manifest(mirror: MirrorSettings, ref: Reference, settings: OriginSettings) -> Manifest:
    """As `metadata.fetch_manifest`."""
    return _import_metadata()(mirror, ref, settings)


def _import_metadata() -> Fetch:
    """A fetch that finds its torrent at a coordinator asks no mirror, and is spared the 0.1 to 0.4 s that importing
    huggingface_hub takes."""
    try:
        from p2pmodel.origin.metadata import fetch_manifest  # noqa: PLC0415
    except ValueError as error:
        # It reads its environment as it is imported, and says neither which variable nor what for.
        raise InvalidInput(f"an HF_* environment variable has a malformed value: {error}", hint="unset it") from None
    return fetch_manifest
