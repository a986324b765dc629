"""The HTTP server of a node in a zone, for nodes of other zones: the verified pieces of all its transfers, at one port.

The last pieces of a transfer are sent from memory, others once they can be read from their files. A transfer has its
own token, which the coordinator passes on. Invariant: a piece that did not pass its check is not sent.
"""

import asyncio
import os
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from p2pmodel.core import notes
from p2pmodel.core.content.bitfield import bits_of
from p2pmodel.core.content.layout import MIB
from p2pmodel.core.pace import Pace
from p2pmodel.errors import InvalidInput, LocalResource, Unavailable
from p2pmodel.http.admission.access import RequestGuard, check_bearer
from p2pmodel.http.connections import ConnectionLimits
from p2pmodel.http.error_responses import error_middleware, error_response
from p2pmodel.http.server import serving
from p2pmodel.node.fetch.pieces.feed_ports import NOWHERE
from p2pmodel.node.local_address import PIECE_PORT, free_port
from p2pmodel.swarm.torrents import Metainfo

IN_MEMORY = 128 * MIB
"""Bytes of the last pieces of a transfer that are sent from memory: those that other zones are asked to pull first."""
CHUNK = MIB
LIMITS = ConnectionLimits(256, 64)


class StoredPieces:
    """The pieces of one transfer that can be sent now. `durable`: those that can be read from their files; `path_of`:
    where the file of an index is. The last ones are in memory, too."""

    def __init__(self, metainfo: Metainfo, upload: Pace) -> None:
        self.upload = upload
        """Rate at which they are sent."""
        self.token = secrets.token_urlsafe(24)
        """What a request for them carries."""
        self._metainfo = metainfo
        self._recent: OrderedDict[int, bytes] = OrderedDict()
        self._size = 0
        self._durable: Callable[[], frozenset[int]] = frozenset
        self._path_of: Callable[[int], Path] = lambda _: NOWHERE
        self._counted: tuple[frozenset[int], int] = frozenset(), 0

    @property
    def info_hash(self) -> str:
        """That of their torrent."""
        return self._metainfo.info_hash

    def read_from(self, durable: Callable[[], frozenset[int]], path_of: Callable[[int], Path]) -> None:
        """Read other pieces than the last ones from files, from now on."""
        self._durable, self._path_of = durable, path_of

    def keep(self, piece: int, data: bytes) -> None:
        """`data` is `piece`, which has passed its check."""
        if piece not in self._recent:
            self._size += len(data)
        self._recent[piece] = data
        while self._size > IN_MEMORY and len(self._recent) > 1:
            self._size -= len(self._recent.popitem(last=False)[1])

    def held(self) -> int:
        """The pieces, bit p for piece p."""
        durable = self._durable()
        if durable is not self._counted[0]:
            self._counted = durable, bits_of(durable)
        return self._counted[1] | bits_of(self._recent)

    async def read(self, piece: int) -> bytes:
        """All bytes of `piece`. Raises Unavailable if it is not there."""
        if (data := self._recent.get(piece)) is not None:
            return data
        if piece not in self._durable():
            raise Unavailable(f"piece {piece} is not here")
        return await asyncio.to_thread(self._from_file, piece)

    def _from_file(self, piece: int) -> bytes:
        place = self._metainfo.layout.piece_range(piece)
        try:
            with self._path_of(place.span.index).open("rb") as file:
                data = os.pread(file.fileno(), place.length, place.offset)
        except OSError:
            data = b""
        if len(data) < place.length:
            raise Unavailable(f"piece {piece} cannot be read now")
        return data


class PieceServer:
    """Serves the pieces of its transfers. Use `serving_pieces`."""

    def __init__(self) -> None:
        self.port = 0
        """Where it listens; 0: it could not, and nothing is served."""
        self._transfers: dict[str, StoredPieces] = {}
        self._no_token = secrets.token_urlsafe(24)

    def add(self, pieces: StoredPieces) -> None:
        """Serve `pieces`, in place of others of the same torrent."""
        self._transfers[pieces.info_hash] = pieces

    def remove(self, pieces: StoredPieces) -> None:
        """Serve `pieces` no more."""
        if self._transfers.get(pieces.info_hash) is pieces:
            del self._transfers[pieces.info_hash]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """GET /pieces/INFO-HASH/PIECE. Without the token of the transfer: 401, whether there is one or not."""
        pieces = self._transfers.get(request.match_info["info_hash"])
        check_bearer(request, pieces.token if pieces else self._no_token)
        assert pieces is not None  # nothing presents `_no_token`
        data = await pieces.read(int(request.match_info["piece"]))
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        response.content_length = len(data)
        await response.prepare(request)
        block = min(pieces.upload.block, CHUNK)
        for begin in range(0, len(data), block):
            part = data[begin : begin + block]
            await pieces.upload.reserve(len(part))
            await response.write(part)
        await response.write_eof()
        return response


@asynccontextmanager
async def serving_pieces(
    host: str, port: int | None, *, zone: str, note: Callable[[str], None] = lambda _line: None
) -> AsyncIterator[PieceServer]:
    """Serve pieces at `host` while the context lasts. `port` None: the usual one, or a free one. Where it cannot
    listen, `note` gets a line, and nothing is served."""
    server, app = PieceServer(), web.Application(middlewares=[error_middleware(error_response)])
    app.router.add_get("/pieces/{info_hash}/{piece:[0-9]{1,9}}", server.handle)
    wanted = free_port(host, PIECE_PORT) if port is None else port
    async with AsyncExitStack() as stack:
        listening = serving(app, host, wanted, guard=RequestGuard(secured=True), grace=0.5, limits=LIMITS, note=note)
        try:
            server.port = urlsplit(await stack.enter_async_context(listening)).port or 0
        except (LocalResource, InvalidInput) as error:
            text = f"no pieces are served to other zones: {error.what}"
            note(notes.warning("zone_exchange", text, zone=zone))
        yield server
