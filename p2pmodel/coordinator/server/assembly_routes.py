"""Births of torrents over a WebSocket: GET /births/<digest>?revision=NAME, in a room (`rooms`). The messages are
`coordinator/assembly_messages`. GET /births/<digest>/<info-hash>.torrent: a chapter of it
(`coordinator/partial_torrents`). DELETE
/births/<digest>?info_hash=HASH: a peer has found the torrent that was born to be wrong.

Nobody vouches for a torrent that was born here until a seeder publishes it, so whoever may speak to this coordinator
may have it withdrawn. The snapshot then has no birth for `BARREN` seconds: a mirror that lies would have it lie again.
"""

import asyncio
import time
from collections.abc import Callable, Mapping

from aiohttp import WSMsgType, web

from p2pmodel.coordinator.assembly import Assembly
from p2pmodel.coordinator.assembly_messages import (
    MAX_MANIFEST,
    birth_name,
    manifest_text,
    parse_manifest,
    parse_tidings,
)
from p2pmodel.coordinator.partial_torrents import chapter_trees
from p2pmodel.coordinator.server.catalog import Catalog
from p2pmodel.coordinator.server.catalog_routes import MEDIA_TYPE
from p2pmodel.coordinator.server.publication import Publication, read_publication
from p2pmodel.coordinator.server.sessions import PeerSession, SessionUpdate, refuse, welcome
from p2pmodel.core.manifest import Manifest
from p2pmodel.core.names import Reference, check_revision, is_commit
from p2pmodel.errors import Conflict, InvalidInput, NotFound, P2PModelError
from p2pmodel.swarm.metainfo import MAX_PIECES
from p2pmodel.swarm.torrents import Metainfo, build, parse

BARREN = 3600.0
"""Seconds for which a snapshot whose torrent was wrong has no birth."""
NOT_AT_ONCE = 60.0
"""Seconds for which one that could not be published has none."""
MANIFEST_TIMEOUT = 30.0
"""Seconds in which a peer must have sent the manifest."""
MAX_BIRTHS = 256
LOOK_EVERY = 1.0
"""Seconds between looks at the catalog, and between words of how many pieces are left."""
_ENDED = 1011
"""WebSocket close code: this side cannot go on."""


class _AssemblySession:
    """One birth, its room, and what is to become of it."""

    def __init__(self, manifest: Manifest, announce: str, budget: float, now: float) -> None:
        self.birth = Assembly(manifest, budget=budget)
        self.announce = announce
        self.revisions: set[str] = set()
        self.born = ""
        self.bearing: asyncio.Task[None] | None = None
        self.chapters: dict[str, bytes] = {}
        """Torrents, by info-hash."""
        self.writing: asyncio.Task[None] | None = None
        """The next of them."""
        self.looked = now
        self.left = self.birth.left


class AssemblyRoutes:
    """The handlers, and the births that somebody is in. `budget` as in `Leases`."""

    def __init__(self, catalog: Catalog, *, budget: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._catalog = catalog
        self._budget = budget
        self._clock = clock
        self._births: dict[str, tuple[_AssemblySession, PeerSession]] = {}
        self._barren: dict[str, float] = {}
        """By digest, until when there is none."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """A peer of one birth, for as long as it stays. Raises Conflict where there is to be none."""
        digest = request.match_info["digest"]
        revisions = [check_revision(name) for name in request.query.getall("revision", [])]
        if self._barren.get(digest, 0.0) > self._clock():
            raise Conflict("what was born of this snapshot was wrong", hint="take it from the mirrors")
        known = self._births.get(digest)
        if known is None and len(self._births) >= MAX_BIRTHS:
            raise InvalidInput(f"there are {MAX_BIRTHS} births already")
        socket = await welcome(request, known[1] if known else None, longest=MAX_MANIFEST)
        try:
            manifest = await _manifest(socket, digest)
            birth, room = self._births.get(digest) or self._conceive(digest, manifest, _announce(request))
        except InvalidInput as error:
            await refuse(socket, error)
            return socket
        birth.revisions |= {name for name in revisions if not is_commit(name)}
        try:
            await room.stay(request, socket, lambda name, text: self._hear(digest, birth, room, name, text))
        finally:
            if not len(room) and self._births.get(digest) == (birth, room):
                del self._births[digest]
        return socket

    async def handle_delete(self, request: web.Request) -> web.Response:
        """A peer has a whole file that is wrong: 204 once the torrent is withdrawn. Raises NotFound if that was not
        born of this snapshot here, or a seeder vouches for it by now."""
        digest, info_hash = request.match_info["digest"], request.query.get("info_hash", "")
        if self._barren.get(digest, 0.0) <= self._clock():
            if not self._catalog.is_born(info_hash) or await asyncio.to_thread(self._digest, info_hash) != digest:
                raise NotFound("no such torrent was born here")
            await self._catalog.withdraw(info_hash)
            self._barren = {name: until for name, until in self._barren.items() if until > self._clock()}
            self._barren[digest] = self._clock() + BARREN
        return web.Response(status=204)

    async def handle_get_chapter(self, request: web.Request) -> web.Response:
        """The torrent of a chapter, as long as its birth lasts."""
        birth, _ = self._births.get(request.match_info["digest"], (None, None))
        chapter = birth.chapters.get(request.match_info["info_hash"]) if birth else None
        if chapter is None:
            raise NotFound("there is no such chapter")
        return web.Response(body=chapter, content_type=MEDIA_TYPE)

    async def close(self, _app: web.Application | None = None) -> None:
        """Tell every peer that this coordinator ends. For `on_shutdown`."""
        for birth, _ in self._births.values():
            for task in (birth.bearing, birth.writing):
                if task is not None:
                    task.cancel()
        await asyncio.gather(*(room.close() for _, room in self._births.values()))

    def _conceive(self, digest: str, manifest: Manifest, announce: str) -> tuple[_AssemblySession, PeerSession]:
        birth = _AssemblySession(manifest, announce, self._budget, self._clock())
        if not 0 < birth.birth.layout.piece_count <= MAX_PIECES:
            raise InvalidInput(f"{manifest.repo} cannot be a torrent")
        if held := self._held(manifest):
            birth.born = held.info_hash

        def words() -> SessionUpdate:
            self._look(birth)
            return SessionUpdate(born=birth.born, left=birth.left, chapters=tuple(birth.chapters))

        room = PeerSession(birth.birth, words, clock=self._clock)
        self._births[digest] = birth, room
        return birth, room

    def _hear(self, digest: str, birth: _AssemblySession, room: PeerSession, name: str, text: str) -> None:
        demand, roots = parse_tidings(text)
        birth.birth.tell(name, demand, roots, self._clock())
        if not birth.birth.left and not birth.born and birth.bearing is None:
            birth.bearing = asyncio.get_running_loop().create_task(self._bear(digest, birth, room))
        elif (birth.writing is None or birth.writing.done()) and (roots := birth.birth.next_chapter()):
            birth.writing = asyncio.get_running_loop().create_task(_write(birth, roots, room))

    def _look(self, birth: _AssemblySession) -> None:
        """A seeder may have published meanwhile."""
        now = self._clock()
        if now - birth.looked < LOOK_EVERY:
            return
        birth.looked, birth.left = now, birth.birth.left
        if not birth.born and (held := self._held(birth.birth.manifest)):
            birth.born = held.info_hash

    def _held(self, manifest: Manifest) -> Publication | None:
        try:
            return self._catalog.find(Reference(manifest.repo, manifest.commit))
        except NotFound:
            return None

    async def _bear(self, digest: str, birth: _AssemblySession, room: PeerSession) -> None:
        """Make the torrent, publish it, and tell everybody."""
        try:
            publication = await asyncio.to_thread(_torrent, birth.birth, birth.announce)
            await self._catalog.publish(publication, birth.revisions, born=True)
        except P2PModelError as error:
            self._barren[digest] = self._clock() + NOT_AT_ONCE
            await room.close(_ENDED, str(error))
            return
        birth.born = publication.info_hash
        room.grant_soon()

    def _digest(self, info_hash: str) -> str:
        """Which birth a torrent of the catalog is of."""
        return birth_name(manifest_text(parse(self._catalog.by_info_hash(info_hash).raw).manifest))


async def _write(birth: _AssemblySession, roots: Mapping[int, bytes], room: PeerSession) -> None:
    """Make a chapter, and tell everybody."""
    manifest, layout = birth.birth.manifest, birth.birth.layout

    def made() -> Metainfo:
        return parse(build(manifest, chapter_trees(layout, roots), trackers=[birth.announce]))

    chapter = await asyncio.to_thread(made)
    birth.chapters[chapter.info_hash] = chapter.raw
    room.grant_soon()


async def _manifest(socket: web.WebSocketResponse, digest: str) -> Manifest:
    """What the peer sends first. Raises InvalidInput."""
    try:
        message = await socket.receive(MANIFEST_TIMEOUT)
    except TimeoutError:
        raise InvalidInput("the manifest did not come") from None
    if message.type is not WSMsgType.TEXT or birth_name(message.data) != digest:
        raise InvalidInput("the first message is not the manifest that the address names")
    return await asyncio.to_thread(parse_manifest, message.data)


def _torrent(birth: Assembly, announce: str) -> Publication:
    return read_publication(build(birth.manifest, birth.trees(), trackers=[announce]))


def _announce(request: web.Request) -> str:
    """This coordinator's tracker as the peer reaches it, which may say its token."""
    base = request.path.partition("/births/")[0]
    return f"{request.url.origin()}{base}/announce"
