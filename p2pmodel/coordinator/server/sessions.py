"""Peers that share out pieces among them, over WebSockets `?peer=ADDRESS:PORT&id=ID`: those of a swarm, or of a birth.

A connection is a peer's presence: when it breaks, what the peer had leased goes to another at once. Who comes back with
the `id` of before is the same peer, whose connection of before is over.
"""

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import WSCloseCode, WSMsgType, web

from p2pmodel.coordinator.lease_messages import HEARTBEAT, MAX_MESSAGE, CoordinatorMessage, message_text
from p2pmodel.coordinator.leases import Grant
from p2pmodel.coordinator.sources import Source
from p2pmodel.core.names import printable
from p2pmodel.errors import InvalidInput

GATHER = 0.01
"""Seconds in which the words of several peers are taken together before anything is granted."""
GATHER_A_PEER = 1e-6
"""Seconds more for each peer that is there: granting looks at everybody, 0.1 us each."""
SEND_TIMEOUT = 5.0
"""Seconds in which a peer must take a message."""
MAX_PEERS = 10_000
"""Peers of one room."""

_numbers = itertools.count()


class GrantSource(Protocol):
    """Who says what is whose to pull: `Leases`, or a `Birth`."""

    def grant(self, now: float) -> Mapping[str, Grant]:
        """What every peer is to be told from now on."""

    def leave(self, name: str) -> None:
        """The peer is gone."""


@dataclass(eq=False, slots=True)
class SessionPeer:
    """One connection. `word` is what the peer is to know; `speaking` sends it when that is news."""

    request: web.Request
    socket: web.WebSocketResponse
    came: float
    grant: Grant | None = None
    word: CoordinatorMessage | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    speaking: asyncio.Task[None] | None = None

    def hang_up(self) -> None:
        """Break the connection without a word."""
        if self.request.transport:
            self.request.transport.abort()


@dataclass(frozen=True, slots=True)
class SessionUpdate:
    """What all peers are told beside their grants; `late` are those who came after `late_after`."""

    sources: tuple[Source, ...] = ()
    late_after: float = math.inf
    born: str = ""
    left: int = 0
    chapters: tuple[str, ...] = ()

    def to(self, peer: SessionPeer, grant: Grant) -> CoordinatorMessage:
        """What one peer is told."""
        return CoordinatorMessage(grant, self.sources, peer.came > self.late_after, self.born, self.left, self.chapters)


class PeerSession:
    """The peers of one swarm or birth. `words` is called whenever something is to be told."""

    def __init__(
        self,
        granting: GrantSource,
        words: Callable[[], SessionUpdate],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._granting = granting
        self._words = words
        self._clock = clock
        self._peers: dict[str, SessionPeer] = {}
        self._said: SessionUpdate | None = None
        self._soon: asyncio.Task[None] | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._peers)

    @property
    def first(self) -> float:
        """When the first came of those who are here."""
        return min((peer.came for peer in self._peers.values()), default=0.0)

    async def stay(self, request: web.Request, socket: web.WebSocketResponse, hear: Callable[[str, str], None]) -> None:
        """Have a peer here for as long as it stays. `hear(name, text)` gets what it tells; InvalidInput ends it."""
        identity = request.query.get("id") or str(next(_numbers))
        name = f"{printable(request.query.get('peer', '?'), 64)}#{printable(identity, 64)}"
        peer = SessionPeer(request, socket, self._clock())
        self._enter(name, peer)
        try:
            await self._listen(name, peer, hear)
        finally:
            if peer.speaking:
                peer.speaking.cancel()
            self._leave(name, peer)

    def grant_soon(self) -> None:
        """Something has changed."""
        if self._soon is None and not self._closed:
            self._soon = asyncio.get_running_loop().create_task(self._grant())

    async def close(self, code: int = WSCloseCode.GOING_AWAY, why: str = "") -> None:
        """Send everybody away."""
        self._closed = True
        if self._soon is not None:
            self._soon.cancel()
        goodbyes = (peer.socket.close(code=code, message=_short(why)) for peer in list(self._peers.values()))
        await asyncio.gather(*goodbyes, return_exceptions=True)

    def _enter(self, name: str, peer: SessionPeer) -> None:
        if before := self._peers.get(name):
            before.hang_up()
        self._peers[name] = peer
        peer.speaking = asyncio.get_running_loop().create_task(_speak(peer))

    def _leave(self, name: str, peer: SessionPeer) -> None:
        if self._peers.get(name) is not peer:
            return
        del self._peers[name]
        self._granting.leave(name)
        if self._peers:
            self.grant_soon()
        elif self._soon is not None:
            self._soon.cancel()
            self._soon = None

    async def _listen(self, name: str, peer: SessionPeer, hear: Callable[[str, str], None]) -> None:
        async for message in peer.socket:
            if message.type is not WSMsgType.TEXT or self._peers.get(name) is not peer:
                break
            try:
                hear(name, message.data)
            except InvalidInput as error:
                await refuse(peer.socket, error)
                break
            self.grant_soon()

    async def _grant(self) -> None:
        await asyncio.sleep(GATHER + GATHER_A_PEER * len(self._peers))
        self._soon = None
        words = self._words()
        as_before, self._said = words == self._said, words
        for name, grant in self._granting.grant(self._clock()).items():
            peer = self._peers.get(name)
            if peer is None or (as_before and peer.grant is grant):
                continue
            peer.grant = grant
            word = words.to(peer, grant)
            if peer.word is None or not _same(peer.word, word):
                peer.word = word
                peer.news.set()


async def welcome(
    request: web.Request, room: PeerSession | None, *, longest: int = MAX_MESSAGE
) -> web.WebSocketResponse:
    """The connection of a peer that comes into `room`, whose messages have `longest` bytes at most."""
    if room is not None and len(room) >= MAX_PEERS:
        raise InvalidInput(f"this swarm has {MAX_PEERS} peers already")
    socket = web.WebSocketResponse(heartbeat=10 * HEARTBEAT, max_msg_size=longest, timeout=SEND_TIMEOUT)
    await socket.prepare(request)
    return socket


async def refuse(socket: web.WebSocketResponse, error: InvalidInput) -> None:
    """End the connection of a peer that makes no sense."""
    await socket.close(code=WSCloseCode.UNSUPPORTED_DATA, message=_short(str(error)))


async def _speak(peer: SessionPeer) -> None:
    """Send what is news, always the latest. A peer that does not read is gone, and holds up nobody else."""
    told: CoordinatorMessage | None = None
    while True:
        await peer.news.wait()
        peer.news.clear()
        word = peer.word
        if word is None or (told and _same(told, word)):
            continue
        told = word
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                await peer.socket.send_str(message_text(word))
        except (ConnectionError, TimeoutError, RuntimeError):
            return peer.hang_up()


def _same(one: CoordinatorMessage, other: CoordinatorMessage) -> bool:
    """Whether `other` is no news to who was told `one`.

    The count of bytes alone is none; nor is that of peers, as long as there are others: each that comes or goes in a
    swarm of ten thousand would be ten thousand messages.
    """
    same = one.grant is other.grant or _gist(one.grant) == _gist(other.grant)
    birth = (one.born, one.left, one.chapters) == (other.born, other.left, other.chapters)
    return same and birth and one.late == other.late and one.sources == other.sources


def _gist(grant: Grant) -> tuple[object, ...]:
    return grant.pieces, grant.refused, grant.peers > 1


def _short(text: str) -> bytes:
    return text.encode()[:100]
