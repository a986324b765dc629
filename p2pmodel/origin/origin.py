"""The origin: everything that comes from HTTP mirrors, in priority order, checked, counted and explained."""

from collections.abc import Callable, Mapping, Sequence
from typing import Self

from p2pmodel.domain.manifest import Manifest, ManifestFile
from p2pmodel.domain.names import Reference
from p2pmodel.origin.clock import Clock
from p2pmodel.origin.job import Fleet, Job
from p2pmodel.origin.lookup import Lookup
from p2pmodel.origin.metadata import fetch_manifest
from p2pmodel.origin.mirror import mirrors_of
from p2pmodel.origin.notes import Notes
from p2pmodel.origin.pulling import Pull
from p2pmodel.origin.reading import Read
from p2pmodel.origin.requests import RangeRequests, new_session
from p2pmodel.origin.sink import RangeSink
from p2pmodel.settings import MirrorSettings, OriginSettings


def _ignore(_: object) -> None:
    pass


class Origin:
    """The mirrors over one connection pool. `async with` opens and closes it.

    `on_note` gets one line whenever a mirror is passed over, waited for or left out.
    """

    def __init__(
        self,
        mirrors: Sequence[MirrorSettings],
        settings: OriginSettings,
        *,
        on_note: Callable[[str], None] = _ignore,
        clock: Clock | None = None,
    ) -> None:
        self._mirrors = mirrors_of(mirrors)
        self._settings = settings
        self._clock = clock or Clock()
        self._notes = Notes(on_note, self._clock)

    def __repr__(self) -> str:
        return f"Origin({list(self._mirrors)!r})"

    async def __aenter__(self) -> Self:
        self._session = new_session(self._settings)
        requests = RangeRequests(self._session, self._clock)
        self._fleet = Fleet(self._mirrors, requests, self._settings, self._clock, self._notes)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._session.close()

    @property
    def bytes_by_mirror(self) -> Mapping[str, int]:
        """Payload bytes received so far, by mirror name; bytes that turned out wrong count too."""
        return {m.name: m.received for m in self._mirrors}

    async def manifest(self, ref: Reference) -> Manifest:
        """What `ref` consists of, from the first mirror that has it.

        Raises GatedRepo, AccessDenied, RevisionNotFound, RepoNotFound, IntegrityError (a listing that cannot be
        used), or Unavailable naming every mirror with its reason.
        """
        return await Lookup(fetch_manifest, self._mirrors, self._settings, self._clock, self._notes).manifest(ref)

    async def pull(
        self,
        manifest: Manifest,
        file: ManifestFile,
        sink: RangeSink,
        *,
        on_bytes: Callable[[int], None] = _ignore,
    ) -> None:
        """Fill `sink` with what it misses of `file`; it returns once `sink.digest()` is the file's etag.

        `on_bytes` gets the size of each write. Cancelling keeps what was written. Raises WrongBytes (naming mirror,
        file and expectation), GatedRepo, AccessDenied, NotFound, Unavailable (naming every mirror with its
        last reason, after `patience` seconds without progress), and what the sink raises.
        """
        await Pull(Job(self._fleet, manifest, file), sink, self._settings.part_size, on_bytes).run()

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
        return await Read(Job(self._fleet, manifest, file), offset, length, accept).run()
