"""Exchange with nodes of other zones over HTTP, as the coordinator's crossings say.

This node serves the pieces that it has verified (`piece_server`). It pulls what its zone lacks from the node that the
coordinator names, and checks each piece against the tree.

Invariants: a request ends within a bound; a node that did not deliver is not asked again for a while, and the
coordinator learns of it.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from http import HTTPStatus
from urllib.parse import urlsplit

import aiohttp

from p2pmodel import http_pool
from p2pmodel.coordinator.leases.crossings import AVOIDED_FOR
from p2pmodel.coordinator.leases.demand import Crossing, Demand
from p2pmodel.coordinator.leases.messages import MOST_UNREACHABLE
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.network.egress import PUBLIC, Egress
from p2pmodel.core.pace import TRICKLE, Pace
from p2pmodel.errors import P2PModelError, Unavailable
from p2pmodel.http_pool import HttpPool
from p2pmodel.node.fetch.pieces.piece_server import CHUNK, PieceServer, StoredPieces, serving_pieces
from p2pmodel.swarm.torrents import Metainfo

SILENCE = 5.0
"""Seconds without a byte, or a connection, after which a node does not deliver."""
PAUSE, MOST_MISSES = 0.3, 5
"""Seconds after a node had not the piece, and how often in a row until it counts as one that does not deliver."""


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
        self.stored = StoredPieces(metainfo, upload)
        self.received = 0
        """Bytes from nodes of other zones."""
        self._metainfo = metainfo
        self._zone = zone
        self._download = download or Pace()
        self._http = http
        self._note = note
        self._clock = clock
        self._port = 0
        self._stack = AsyncExitStack()
        self._failed: dict[str, float] = {}
        """When nodes did not deliver, by address."""
        self._misses: Counter[str] = Counter()
        self._egress = PUBLIC
        self._coordinator = ""
        self._session: aiohttp.ClientSession | None = None

    async def open(self, host: str, port: int | None, shared: PieceServer | None = None) -> None:
        """Serve by `shared`, or at `host` and `port`, as `serving_pieces` says. Where that cannot listen, it takes no
        part."""
        if shared is None:
            server = serving_pieces(host, port, zone=self._zone, note=self._note)
            shared = await self._stack.enter_async_context(server)
        shared.add(self.stored)
        self._stack.callback(shared.remove, self.stored)
        self._port = shared.port

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
        return held, self.stored.token, tuple(self.unreachable)[-MOST_UNREACHABLE:]

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
