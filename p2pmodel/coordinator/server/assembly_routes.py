"""Assemblies over HTTP.

GET    /assemblies/<digest>?revision=NAME         a WebSocket (`sessions`) with `coordinator/assembly/messages`
GET    /assemblies/<digest>/<info-hash>.torrent   a partial torrent (`coordinator/assembly/partial_torrents`)
DELETE /assemblies/<digest>?info_hash=HASH        withdraw the assembled torrent: a peer found wrong content

Any member may have an assembled torrent withdrawn, but none that a publisher has confirmed. The snapshot then has
no assembly for `BARREN` seconds: a mirror that sends wrong bytes would do so again.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakValueDictionary

from aiohttp import WSMsgType, web
from cachetools import TLRUCache

from p2pmodel.config.sections.coordinator import QuotaSettings
from p2pmodel.coordinator.assembly.assembly import Assembly
from p2pmodel.coordinator.assembly.messages import (
    MAX_MANIFEST,
    PART,
    assembly_digest,
    manifest_text,
    parse_manifest,
    update_of,
)
from p2pmodel.coordinator.assembly.partial_torrents import partial_trees
from p2pmodel.coordinator.leases.messages import object_of
from p2pmodel.coordinator.server.access import CoordinatorAccess
from p2pmodel.coordinator.server.catalog.catalog import ASSEMBLY, Catalog
from p2pmodel.coordinator.server.catalog.catalog_routes import MEDIA_TYPE
from p2pmodel.coordinator.server.catalog.publication import Publication, read_publication
from p2pmodel.coordinator.server.credentials import CALLER, Credentials
from p2pmodel.coordinator.server.rollouts.registry import Rollouts
from p2pmodel.coordinator.server.rollouts.routes import NodeNumbers
from p2pmodel.coordinator.server.sessions import PeerSession, SessionUpdate, accept, refuse
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference, RepoId, check_revision, is_commit
from p2pmodel.core.network.addresses import neighbourhood
from p2pmodel.errors import AccessDenied, Conflict, InvalidInput, NotFound, P2PModelError, TooManyRequests
from p2pmodel.swarm.metainfo import MAX_PIECES
from p2pmodel.swarm.torrents import Metainfo, build, parse
from p2pmodel.trust.access.policy import Verb

BARREN = 3600.0
"""Seconds for which a snapshot has no assembly after a wrong torrent."""
NOT_AT_ONCE = 60.0
"""Seconds for which a snapshot has no assembly after its torrent could not be published."""
MAX_BARREN = 10_000
"""Most snapshots without an assembly that are remembered."""
MANIFEST_TIMEOUT = 30.0
"""Seconds in which a peer must send the manifest."""
MAX_ASSEMBLIES = 256
LOOK_EVERY = 1.0
"""Seconds between looks at the catalog, and between messages about the number of pieces left."""
DEFAULT_QUOTAS = QuotaSettings()
_ENDED = 1011
"""WebSocket close code: the server cannot continue."""


MANIFESTS_AT_ONCE = 8
"""Manifests that are received at the same time."""
MANIFESTS_OF_ADDRESS = 2


class ManifestTurns:
    """Bounds the manifests in transit, which are long and kept in memory: MANIFESTS_AT_ONCE together,
    MANIFESTS_OF_ADDRESS of one address."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(MANIFESTS_AT_ONCE)
        self._by_address: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, address: str) -> AsyncIterator[None]:
        """Wait for a turn of a client at `address`, and keep it while the context lasts."""
        own = self._by_address.setdefault(address, asyncio.Semaphore(MANIFESTS_OF_ADDRESS))
        async with own, self._all:
            yield


class _AssemblySession:
    """One assembly, its peers, and the torrents made of it."""

    def __init__(
        self,
        manifest: Manifest,
        catalog: Catalog,
        *,
        trackers: Sequence[str],
        budget: float,
        clock: Callable[[], float],
        messages_per_second: float,
    ) -> None:
        self.assembly = Assembly(manifest, budget=budget)
        self.peers = PeerSession(self.assembly, self._update, clock=clock, messages_per_second=messages_per_second)
        self.revisions: set[str] = set()
        self.founder = ""
        """The address of the peer that began it."""
        self.partial_torrents: dict[str, bytes] = {}
        """By info-hash."""
        self._catalog = catalog
        self._trackers = trackers
        self._clock = clock
        self._left = self.assembly.left
        self._looked = clock()
        self._publishing: asyncio.Task[None] | None = None
        self._writing: asyncio.Task[None] | None = None
        """Makes the next partial torrent."""
        held = self._held()
        self._assembled = held.info_hash if held else ""

    def receive(self, name: str, plain: dict[str, Any], address: str, fail: Callable[[], None]) -> None:
        """Take a message of the peer `name` at `address`. `fail` is called if the torrent cannot be published."""
        demand, roots = update_of(plain)
        self.assembly.update(name, demand, roots, self._clock(), address=address)
        loop = asyncio.get_running_loop()
        if not self.assembly.left and not self._assembled and self._publishing is None:
            self._publishing = loop.create_task(self._publish(fail))
        elif (self._writing is None or self._writing.done()) and (roots := self.assembly.next_partial_torrent()):
            self._writing = loop.create_task(self._write(roots))

    async def close(self) -> None:
        """Stop the work, and close all connections."""
        for task in (self._publishing, self._writing):
            if task is not None:
                task.cancel()
        await self.peers.close()

    def _update(self) -> SessionUpdate:
        now = self._clock()
        if now - self._looked >= LOOK_EVERY:
            self._looked, self._left = now, self.assembly.left
            if not self._assembled and (held := self._held()):  # a seeder has published it meanwhile
                self._assembled = held.info_hash
        return SessionUpdate(assembled=self._assembled, left=self._left, partial_torrents=tuple(self.partial_torrents))

    def _held(self) -> Publication | None:
        manifest = self.assembly.manifest
        try:
            return self._catalog.find(Reference(manifest.repo, manifest.commit))
        except NotFound:
            return None

    async def _publish(self, fail: Callable[[], None]) -> None:
        """Make the torrent and publish it in the catalog; the peers are informed."""
        try:
            publication = await asyncio.to_thread(_final_torrent, self.assembly, self._trackers)
            await self._catalog.publish(publication, self.revisions, by=ASSEMBLY)
        except P2PModelError as error:
            fail()
            await self.peers.close(_ENDED, str(error))
            return
        self._assembled = publication.info_hash
        self.peers.grant_soon()

    async def _write(self, roots: Mapping[int, bytes]) -> None:
        """Make a partial torrent; the peers are informed."""
        partial = await asyncio.to_thread(_partial_torrent, self.assembly, roots, self._trackers)
        self.partial_torrents[partial.info_hash] = partial.raw
        self.peers.grant_soon()


class AssemblyRoutes:
    """The handlers, and the assemblies that have peers. `budget` as in `Leases`.

    `trackers` returns the tracker URLs of assembled torrents. A repository that `is_private` has no assembly: its nodes
    would exchange over plain connections.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        budget: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        trackers: Callable[[], Sequence[str]] = tuple,
        quotas: QuotaSettings = DEFAULT_QUOTAS,
        rollouts: Rollouts | None = None,
        is_private: Callable[[RepoId], bool] = lambda _repo: False,
        access: CoordinatorAccess | None = None,
    ) -> None:
        self._is_private = is_private
        self._access = access or CoordinatorAccess(Credentials())
        self._rollouts = rollouts or Rollouts()
        self._quotas = quotas
        self._catalog = catalog
        self._trackers = trackers
        self._budget = budget
        self._clock = clock
        self._turns = ManifestTurns()
        self._sessions: dict[str, _AssemblySession] = {}
        self._barren: TLRUCache[str, float] = TLRUCache(
            MAX_BARREN, ttu=lambda _, seconds, now: now + seconds, timer=clock
        )
        """For how many seconds a snapshot has no assembly, by digest."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one peer of an assembly until it leaves. Raises Conflict while the snapshot may have none."""
        digest = request.match_info["digest"]
        revisions = [check_revision(name) for name in request.query.getall("revision", [])]
        if digest in self._barren:
            raise Conflict(
                "a torrent of this snapshot failed verification and was withdrawn", hint="download from the mirrors"
            )
        known = self._sessions.get(digest)
        founder = neighbourhood(request.remote or "")
        self._check_room(known, founder)
        socket = await accept(request, known.peers if known else None)
        try:
            async with self._turns.of(founder):
                manifest = await _manifest(socket, digest)
            _check(request, manifest.repo)
            session = self._sessions.get(digest) or self._new_session(digest, manifest, founder)
        except (InvalidInput, AccessDenied) as error:
            await refuse(socket, error)
            return socket
        session.revisions |= {name for name in revisions if not is_commit(name)}

        def fail() -> None:
            self._barren[digest] = NOT_AT_ONCE

        address = request.remote or ""
        numbers = NodeNumbers(self._rollouts, request, manifest.repo, manifest.commit)

        def receive(name: str, text: str) -> None:
            plain = object_of(text)
            session.receive(name, plain, address, fail)
            numbers.take(plain)

        try:
            async with self._access.ending(request, socket, manifest.repo):
                await session.peers.serve(request, socket, receive)
        finally:
            if not len(session.peers) and self._sessions.get(digest) is session:
                del self._sessions[digest]
        return socket

    async def handle_delete(self, request: web.Request) -> web.Response:
        """Withdraw an assembled torrent because a whole file of it is wrong: 204.

        Raises NotFound if the torrent was not assembled here, or a seeder has published it since.
        """
        digest, info_hash = request.match_info["digest"], request.query.get("info_hash", "")
        if digest not in self._barren:
            if not self._catalog.is_assembled(info_hash) or await asyncio.to_thread(self._digest, info_hash) != digest:
                raise NotFound("no such torrent was assembled here")
            _check(request, self._catalog.by_info_hash(info_hash).repo)
            await self._catalog.withdraw(info_hash)
            self._barren[digest] = BARREN
        return web.Response(status=204)

    async def handle_get_partial_torrent(self, request: web.Request) -> web.Response:
        """A partial torrent, while its assembly lasts."""
        session = self._sessions.get(request.match_info["digest"])
        partial = session.partial_torrents.get(request.match_info["info_hash"]) if session else None
        if partial is None:
            raise NotFound("there is no such partial torrent")
        assert session is not None
        _check(request, session.assembly.manifest.repo)
        return web.Response(body=partial, content_type=MEDIA_TYPE)

    def repo_of(self, info_hash: bytes) -> RepoId | None:
        """The repository of the partial torrent that is announced by these 20 bytes."""
        announced = info_hash.hex()
        for session in self._sessions.values():
            if any(each[:40] == announced for each in session.partial_torrents):
                return session.assembly.manifest.repo
        return None

    async def close(self, _app: web.Application | None = None) -> None:
        """Close all connections. For `on_shutdown`."""
        await asyncio.gather(*(session.close() for session in self._sessions.values()))

    def _check_room(self, known: _AssemblySession | None, founder: str) -> None:
        if known is not None:
            return
        if len(self._sessions) >= MAX_ASSEMBLIES:
            raise InvalidInput(f"there are {MAX_ASSEMBLIES} assemblies already")
        most = self._quotas.assemblies_per_address
        if sum(session.founder == founder for session in self._sessions.values()) >= most:
            raise TooManyRequests(f"this address has begun {most} assemblies already", retry_after=10)

    def _new_session(self, digest: str, manifest: Manifest, founder: str) -> _AssemblySession:
        if self._is_private(manifest.repo):
            raise InvalidInput(f"{manifest.repo} is private here, and private snapshots are not assembled: seed it")
        self._check_room(None, founder)
        session = _AssemblySession(
            manifest,
            self._catalog,
            trackers=self._trackers(),
            budget=self._budget,
            clock=self._clock,
            messages_per_second=self._quotas.messages_per_second,
        )
        if not 0 < session.assembly.layout.piece_count <= MAX_PIECES:
            raise InvalidInput(f"{manifest.repo} cannot be a torrent")
        session.founder = founder
        self._sessions[digest] = session
        return session

    def _digest(self, info_hash: str) -> str:
        """Digest of the assembly of a torrent in the catalog."""
        return assembly_digest(manifest_text(parse(self._catalog.by_info_hash(info_hash).raw).manifest))


def _check(request: web.Request, repo: RepoId) -> None:
    """Raise unless the caller may read `repo`."""
    if CALLER in request:
        request[CALLER].check(Verb.READ, repo)


def _end(_digest: str, seconds: float, now: float) -> float:
    return now + seconds


async def _manifest(socket: web.WebSocketResponse, digest: str) -> Manifest:
    """Receive the manifest, in the first messages. Raises InvalidInput."""
    wrong = InvalidInput("the first messages are not the manifest that the address names")
    parts: list[str] = []
    try:
        async with asyncio.timeout(MANIFEST_TIMEOUT):
            while not parts or len(parts[-1]) == PART:
                message = await socket.receive()
                if message.type is not WSMsgType.TEXT or len(message.data) > PART or len(parts) > MAX_MANIFEST // PART:
                    raise wrong
                parts.append(message.data)
    except TimeoutError:
        raise InvalidInput("the manifest did not arrive") from None
    text = "".join(parts)
    if assembly_digest(text) != digest:
        raise wrong
    return await asyncio.to_thread(parse_manifest, text)


def _final_torrent(assembly: Assembly, trackers: Sequence[str]) -> Publication:
    return read_publication(build(assembly.manifest, assembly.trees(), trackers=trackers))


def _partial_torrent(assembly: Assembly, roots: Mapping[int, bytes], trackers: Sequence[str]) -> Metainfo:
    return parse(build(assembly.manifest, partial_trees(assembly.layout, roots), trackers=trackers))
