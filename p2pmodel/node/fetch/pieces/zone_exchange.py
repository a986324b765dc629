"""Exchange with nodes of other zones over HTTP, as the coordinator's crossings say.

This node serves the pieces that it has verified: the last ones from memory, others once they can be read from their
files. It pulls what its zone lacks from the node that the coordinator names, and checks each piece against the tree.

Invariants: a piece that did not pass its check is not served; a request ends within a bound; a node that did not
deliver is not asked again for a while, and the coordinator learns of it.
"""

import asyncio
import os
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from p2pmodel import http_pool
from p2pmodel.coordinator.leases.crossings import AVOIDED_FOR
from p2pmodel.coordinator.leases.demand import Crossing, Demand
from p2pmodel.coordinator.leases.messages import MOST_UNREACHABLE
from p2pmodel.core import notes
from p2pmodel.core.content.bitfield import bits_of
from p2pmodel.core.content.layout import MIB
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.network.egress import PUBLIC, Egress
from p2pmodel.core.pace import TRICKLE, Pace
from p2pmodel.errors import InvalidInput, LocalResource, P2PModelError, Unavailable
from p2pmodel.http.admission.access import RequestGuard, check_bearer
from p2pmodel.http.connections import ConnectionLimits
from p2pmodel.http.error_responses import error_middleware, error_response
from p2pmodel.http.server import serving
from p2pmodel.http_pool import HttpPool
from p2pmodel.node.fetch.pieces.feed_ports import NOWHERE
from p2pmodel.node.local_address import PIECE_PORT, free_port
from p2pmodel.swarm.torrents import Metainfo

IN_MEMORY = 128 * MIB
"""Bytes of the last pieces that are served from memory: those that the coordinator asks other zones to pull first."""
SILENCE = 5.0
"""Seconds without a byte, or a connection, after which a node does not deliver."""
CHUNK = MIB
PAUSE, MOST_MISSES = 0.3, 5
"""Seconds after a node had not the piece, and how often in a row until it counts as one that does not deliver."""
MOST_CONNECTIONS, MOST_OF_ADDRESS = 256, 64


LIMITS = ConnectionLimits(MOST_CONNECTIONS, MOST_OF_ADDRESS)


class StoredPieces:
    """The pieces of one transfer that can be sent now. `durable`: those that can be read from their files; `path_of`:
    where the file of an index is. The last ones are in memory, too."""

    def __init__(self, metainfo: Metainfo) -> None:
        self._metainfo = metainfo
        self._recent: OrderedDict[int, bytes] = OrderedDict()
        self._size = 0
        self._durable: Callable[[], frozenset[int]] = frozenset
        self._path_of: Callable[[int], Path] = lambda _: NOWHERE
        self._counted: tuple[frozenset[int], int] = frozenset(), 0

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


class ZoneExchange:
    """The exchange of one transfer of a node in `zone`. `open` it before anything else, and `close` it at the end.

    `upload` and `download` are the rates of all that is sent and received over HTTP. `note` gets log lines.
    """

    def __init__(
        self,
        metainfo: Metainfo,
        zone: str,
        *,
        upload: Pace,
        download: Pace | None = None,
        http: HttpPool | None = None,
        note: Callable[[str], None] = lambda _line: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stored = StoredPieces(metainfo)
        self.received = 0
        """Bytes from nodes of other zones."""
        self._metainfo = metainfo
        self._zone = zone
        self._upload = upload
        self._download = download or Pace()
        self._http = http
        self._note = note
        self._clock = clock
        self._token = secrets.token_urlsafe(24)
        self._port = 0
        self._stack = AsyncExitStack()
        self._failed: dict[str, float] = {}
        """When nodes did not deliver, by address."""
        self._misses: Counter[str] = Counter()
        self._egress = PUBLIC
        self._coordinator = ""
        self._session: aiohttp.ClientSession | None = None

    async def open(self, host: str, port: int | None) -> None:
        """Serve at `host`. `port` None: the usual one, or a free one. Where it cannot listen, it takes no part."""
        app = web.Application(middlewares=[error_middleware(error_response)])
        app.router.add_get("/pieces/{info_hash}/{piece:[0-9]{1,9}}", self._handle)
        wanted = free_port(host, PIECE_PORT) if port is None else port
        try:
            url = await self._stack.enter_async_context(
                serving(app, host, wanted, guard=RequestGuard(secured=True), grace=0.5, limits=LIMITS, note=self._note)
            )
        except (LocalResource, InvalidInput) as error:
            text = f"no pieces are served to other zones: {error.what}"
            self._note(notes.warning("zone_exchange", text, zone=self._zone))
            return
        self._port = urlsplit(url).port or 0

    async def close(self) -> None:
        """Serve and pull no more."""
        if self._session is not None:
            await self._session.close()
        await self._stack.aclose()

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters of the coordinator's URL."""
        return {"zone": self._zone, "pieces": str(self._port)} if self._port else {}

    def fill(self, demand: Demand) -> tuple[int, str, tuple[str, ...]]:
        """What goes with `demand`: the pieces that are served, the token for them, and unreachable nodes."""
        held = self.stored.held() & ~demand.scarce if self._port else 0
        return held, self._token, tuple(self.unreachable)[-MOST_UNREACHABLE:]

    def trust(self, coordinator: str, egress: Egress) -> None:
        """Pull from nodes that the coordinator at this URL names, at addresses that `egress` admits."""
        self._coordinator, self._egress = coordinator, egress

    @property
    def unreachable(self) -> list[str]:
        """Addresses of nodes that lately did not deliver."""
        now = self._clock()
        self._failed = {each: at for each, at in self._failed.items() if now - at < AVOIDED_FOR}
        return list(self._failed)

    async def read(self, crossing: Crossing) -> bytes:
        """The right bytes of a piece. Raises Unavailable."""
        place = self._metainfo.layout.piece_range(crossing.piece)
        try:
            async with asyncio.timeout(SILENCE + place.length / TRICKLE):
                data = await self._request(crossing, place.length)
            if data is not None and not await asyncio.to_thread(self._metainfo.accepts, crossing.piece, data):
                raise Unavailable(f"the node at {crossing.address} sent other bytes than piece {crossing.piece}")
        except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
            self._failed[crossing.address] = self._clock()
            raise Unavailable(f"the node at {crossing.address} did not send piece {crossing.piece}") from error
        except P2PModelError:
            self._failed[crossing.address] = self._clock()
            raise
        if data is None:
            await self._missed(crossing.address)
            raise Unavailable(f"the node at {crossing.address} has no piece {crossing.piece} now")
        del self._misses[crossing.address]
        return data

    async def _missed(self, address: str) -> None:
        """A node had not the piece: it may be about to write it."""
        self._misses[address] += 1
        if self._misses[address] >= MOST_MISSES:
            del self._misses[address]
            self._failed[address] = self._clock()
        await asyncio.sleep(PAUSE)

    async def _request(self, crossing: Crossing, length: int) -> bytes | None:
        """The bytes as they came; None if the node has not the piece now."""
        url = self._url(crossing)
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
            self._session = http_pool.session(self._http, egress=self._egress, timeout=timeout)
        headers, data = {"Authorization": f"Bearer {crossing.token}"}, bytearray()
        async with self._session.get(url, headers=headers, allow_redirects=False) as response:
            if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
                return None
            if response.status != HTTPStatus.OK or response.content_length != length:
                raise Unavailable(f"the node at {crossing.address} answered HTTP {response.status}")
            async for chunk in response.content.iter_chunked(CHUNK):
                self.received += len(chunk)
                await self._download.spend(len(chunk))
                data += chunk
                if len(data) > length:
                    raise Unavailable(f"the node at {crossing.address} sent more than a piece")
        if len(data) < length:
            raise Unavailable(f"the node at {crossing.address} sent less than a piece")
        return bytes(data)

    def _url(self, crossing: Crossing) -> str:
        address = crossing.address
        if address.startswith(":"):
            address = str(ListenAddress(urlsplit(self._coordinator).hostname or "", int(address[1:])))
        url = f"http://{address}/pieces/{self._metainfo.info_hash}/{crossing.piece}"
        if refusal := self._egress.url_refusal(url):
            raise Unavailable(f"the address {crossing.address} of the other node is not allowed: {refusal}")
        return url

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        """GET /pieces/INFO-HASH/PIECE."""
        check_bearer(request, self._token)
        if request.match_info["info_hash"] != self._metainfo.info_hash:
            raise Unavailable("this node serves another torrent")
        data = await self.stored.read(int(request.match_info["piece"]))
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        response.content_length = len(data)
        await response.prepare(request)
        block = min(self._upload.block, CHUNK)
        for begin in range(0, len(data), block):
            part = data[begin : begin + block]
            await self._upload.reserve(len(part))
            await response.write(part)
        await response.write_eof()
        return response
