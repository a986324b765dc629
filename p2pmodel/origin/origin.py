"""The origin: manifests, files, ranges and forwarded requests from all HTTP mirrors together."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Self

from cachetools import LRUCache

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.core import notes
from p2pmodel.core.content.leaf_proof import PieceTree, Runs
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import Reference, RepoId
from p2pmodel.core.pace import Pace
from p2pmodel.core.tasks import together
from p2pmodel.errors import P2PModelError, Unavailable
from p2pmodel.http_pool import HttpPool
from p2pmodel.origin.clock import Clock
from p2pmodel.origin.download.download import FileDownload
from p2pmodel.origin.download.job import MirrorJob, RangeSink, Suspects
from p2pmodel.origin.download.range_read import ProofRead, RangeRead
from p2pmodel.origin.lookup import Listing, Lookup
from p2pmodel.origin.metadata import HubMetadata
from p2pmodel.origin.mirrors.mirror import Mirror, MirrorCounters, MirrorStatus, compare, mirrors_of
from p2pmodel.origin.mirrors.pool import MirrorNotes, MirrorPool, in_order, serving
from p2pmodel.origin.mirrors.probes import Probes
from p2pmodel.origin.mirrors.state_file import recall, remember
from p2pmodel.origin.relay.answer import RelayAnswer
from p2pmodel.origin.relay.relay import Relay
from p2pmodel.origin.relay.request import RelayRequest
from p2pmodel.origin.requests import RangeRequests
from p2pmodel.origin.sessions import MirrorSessions

MAX_LISTED = 1000
"""Commits of which the listing mirror is remembered."""
_RECORD_EVERY = 30.0


def _ignore(_: object) -> None:
    pass


class Origin:
    """The mirrors over one connection pool. `async with` opens and closes it.

    `on_note` receives a line when a mirror is skipped, waited for or excluded. `pace` bounds all mirrors together,
    beside each mirror's own limit. `http` are connections to share.
    """

    def __init__(
        self,
        mirrors: Sequence[MirrorSettings],
        settings: OriginSettings,
        *,
        on_note: Callable[[str], None] = _ignore,
        clock: Clock | None = None,
        pace: Pace | None = None,
        http: HttpPool | None = None,
    ) -> None:
        self._mirrors = mirrors_of(mirrors, pace)
        self._pace = pace
        self._http = http
        self._settings = settings
        self._clock = clock or Clock()
        self._notes = MirrorNotes(on_note, self._clock)
        self._suspects = Suspects()
        self._recorded_at = self._clock.now()
        self._listed_by: LRUCache[tuple[RepoId, str], str] = LRUCache(MAX_LISTED)
        """The mirror that listed a commit last."""

    def __repr__(self) -> str:
        return f"Origin({list(self._mirrors)!r})"

    async def __aenter__(self) -> Self:
        proxies = self._settings.proxies
        for mirror in self._mirrors:
            if not mirror.direct:
                proxies.of(mirror.base)  # a proxy that cannot be used is an error of the settings
        self._sessions = MirrorSessions(self._settings, self._http)
        if self._settings.state_dir:
            await asyncio.to_thread(recall, self._settings.state_dir, self._mirrors, self._clock)
        on_rate = partial(compare, self._mirrors)
        egress = self._settings.egress
        requests = RangeRequests(self._sessions, self._clock, lambda: on_rate(self._clock.now()), egress=egress)
        self._requests = requests
        self._metadata = HubMetadata(requests, self._settings)
        self._pool = MirrorPool(self._mirrors, requests, self._settings, self._clock, self._notes, pace=self._pace)
        self._probes = Probes(self._pool)
        self._relay = Relay(self._pool)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._probes.close()
        await self._sessions.close()
        await self._record()

    async def _record(self) -> None:
        self._recorded_at = self._clock.now()
        folder = self._settings.state_dir
        if folder and self._mirrors:
            try:
                await asyncio.to_thread(remember, folder, self._mirrors, self._clock)
            except OSError as error:
                self._notes.add(
                    notes.warning(
                        "state_not_recorded", f"cannot record the state of the mirrors in {folder}: {error.strerror}"
                    ),
                    "record",
                )

    @property
    def bytes_by_mirror(self) -> Mapping[str, int]:
        """Payload bytes received so far, by mirror name; wrong bytes are included."""
        return {m.name: m.counters.received for m in self._mirrors}

    @property
    def wasted_bytes(self) -> int:
        """Payload bytes received so far that were of no use: duplicate or wrong."""
        return sum(m.counters.wasted for m in self._mirrors)

    @property
    def active_at(self) -> float:
        """Time of the last request or byte of any mirror, by `time.monotonic`."""
        return max((m.active_at for m in self._mirrors), default=0.0)

    def counters(self) -> Mapping[str, MirrorCounters]:
        """Totals of each mirror so far, by name."""
        return {m.name: m.counters for m in self._mirrors}

    def statuses(self) -> tuple[MirrorStatus, ...]:
        """State and estimates of each mirror now, in priority order."""
        now = self._clock.now()
        return tuple(m.status(now) for m in self._mirrors)

    async def manifest(self, ref: Reference) -> Manifest:
        """The manifest of `ref` from the first mirror that has it.

        Raises GatedRepo, AccessDenied, RevisionNotFound, RepoNotFound, IntegrityError (an unusable listing), or
        Unavailable naming every mirror with its reason.
        """
        return (await self.listing(ref)).manifest

    async def listing(self, ref: Reference) -> Listing:
        """As `manifest`, with the name of the mirror."""
        mirrors = self._listers(ref.repo)
        if not mirrors and serving(self._mirrors, ref.repo):
            raise Unavailable(
                f"no mirror of {ref.repo} lists the hub's commits", hint="add a mirror with the hub's API"
            )
        found = await Lookup(self._metadata.manifest, mirrors, self._settings, self._clock, self._notes).listing(ref)
        name = found.manifest.repo
        if name != ref.repo:
            line = f"{ref.repo} is called {name} by mirror {found.mirror}: it is kept under that name"
            self._notes.add(
                notes.info("repository_renamed", line, repo=str(name), asked=str(ref.repo)), "renamed", line
            )
        self._listed_by[found.manifest.repo, found.manifest.commit] = found.mirror
        return found

    def _listers(self, repo: RepoId) -> list[Mirror]:
        """The mirrors that may list commits of `repo`, those to ask first at the front."""
        mirrors = in_order(self._mirrors, self._clock.now())
        return [mirror for mirror in mirrors if mirror.settings.lists_commits_of(repo)]

    async def listings(self, ref: Reference) -> tuple[list[Listing], dict[str, str]]:
        """Each mirror's own listing of the commit `ref`, and why others have none, by name. Of mirrors at one endpoint
        one is asked. Raises no failure of a mirror."""
        listed, failures = list[Listing](), dict[str, str]()
        apart = {mirror.settings.endpoint: mirror for mirror in reversed(self._listers(ref.repo))}

        async def ask(mirror: Mirror) -> None:
            lookup = Lookup(self._metadata.manifest, [mirror], self._settings, self._clock, self._notes)
            try:
                listed.append(await lookup.listing(ref))
            except P2PModelError as error:
                failures[mirror.name] = error.what

        await together(ask(mirror) for mirror in apart.values())
        return sorted(listed, key=lambda each: each.mirror), failures

    def voucher(self, manifest: Manifest) -> str:
        """What listed the files of `manifest`: `mirror NAME`, or `record` if a mirror did so in an earlier run."""
        name = self._listed_by.get((manifest.repo, manifest.commit))
        return f"mirror {name}" if name else "record"

    def relay(self, request: RelayRequest) -> AbstractAsyncContextManager[RelayAnswer]:
        """Forward a client's request to the mirrors: see `Relay.open`."""
        return self._relay.open(request)

    async def probe(self, manifest: Manifest, file: ManifestFile) -> None:
        """Read the first 256 KiB of `file` from every mirror, for `statuses`. A failure is not raised; it is the
        mirror's state and reason."""
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
        """Write the missing bytes of `file` to `sink`, until `sink.digest()` is the file's etag.

        Returns the names of the mirrors that sent bytes now. `on_bytes` receives the size of each write.
        `ranges_only`: exclude mirrors that answer a range with the whole file. After a cancellation the written bytes
        stay. Raises WrongBytes (naming mirror, file and expectation), GatedRepo, AccessDenied, NotFound, Unavailable
        (naming every mirror with its last reason, after `patience` seconds without progress), and what the sink raises.
        """
        sources = await FileDownload(
            self._pool, MirrorJob(self._pool, manifest, file), sink, on_bytes, ranges_only=ranges_only
        ).run()
        if self._clock.now() - self._recorded_at >= _RECORD_EVERY:
            await self._record()
        return sources

    def doubts(self, file: ManifestFile) -> bool:
        """Whether bytes of some mirror for `file` failed the hash of a piece, and `judge` was not called since."""
        return bool(self._suspects.of(file))

    def judge(self, file: ManifestFile, *, pieces_right: bool) -> None:
        """The hash of the whole `file` has shown whether the hashes of its pieces, which `read` checked bytes against,
        are right. If so, mirrors that sent other bytes are quarantined; else they are suspects no longer."""
        for mirror in self._suspects.take(file):
            if pieces_right and mirror.vouches_for(file):
                mirror.corrupted(self._clock.now())
                line = f"mirror {mirror.name} sent wrong bytes for {file.path}: other bytes than the hub's hash is of"
                self._notes.add(notes.warning("mirror_refused", line, mirror=mirror.name), "judged", mirror.name)

    async def read(
        self,
        manifest: Manifest,
        file: ManifestFile,
        offset: int,
        length: int,
        *,
        accept: Callable[[bytes], bool] | None,
        avoided: frozenset[str] = frozenset(),
        on_mirror: Callable[[str], None] = lambda _: None,
    ) -> bytes:
        """`length` bytes of `file` from `offset`, from one mirror, that `accept` returns True for.

        The mirrors `avoided` are asked only if no other can be. `on_mirror` is called with the name of each that is
        asked.

        `accept` is pure and may run in a thread. After False the next mirror is asked; the mirror is a suspect until
        `judge` is called. None: the bytes are checked later, with others.
        Raises as `pull` does.
        """
        if not (offset >= 0 and 0 < length <= file.size - offset):
            raise ValueError(f"bytes {offset}-{offset + length} are outside {file.path} ({file.size} bytes)")
        self._probes.start_due(manifest, file)
        return await RangeRead(
            MirrorJob(self._pool, manifest, file, suspects=self._suspects, avoided=avoided),
            self._clock,
            offset,
            length,
            accept,
            on_mirror=on_mirror,
        ).run()

    async def proof(
        self,
        manifest: Manifest,
        file: ManifestFile,
        tree: PieceTree,
        runs: Runs,
        *,
        accept: Callable[[bytes], bool],
    ) -> bytes:
        """The proof for `runs` of blocks of the piece of `file` with this `tree`, that `accept`, which is quick,
        returns True for. After False the next mirror is asked, as in `read`. Raises as `pull` does; NotFound where no
        mirror serves proofs."""
        settings = self._settings
        within = settings.connect_timeout + 2 * settings.read_timeout
        job = MirrorJob(self._pool, manifest, file, suspects=self._suspects)
        return await ProofRead(self._requests, job, tree, runs, accept, within=within).run()
