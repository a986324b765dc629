"""WebSocket sessions of peers that divide pieces among them: the peers of one swarm, or of one assembly.

A connection, `?peer=ADDRESS:PORT&id=ID`, is a peer's presence: when it breaks, the peer's leases go to other peers at
once. A reconnect with the same id replaces the previous connection.
"""

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from aiohttp import WSCloseCode, WSMsgType, web

from p2pmodel.coordinator.leases.demand import Grant
from p2pmodel.coordinator.leases.messages import (
    HEARTBEAT,
    MAX_MESSAGE,
    MOST_HEARTBEATS,
    NGINX_UPGRADE,
    NO_UPGRADE,
    CoordinatorMessage,
    message_text,
)
from p2pmodel.coordinator.tracker.sources import Source
from p2pmodel.core.content.names import printable
from p2pmodel.errors import InvalidInput, P2PModelError, UpgradeRequired

GATHER = 0.01
"""Seconds in which messages of several peers are collected before anything is granted."""
GATHER_A_PEER = 1e-6
"""Seconds more for each peer of the session: granting looks at all peers, 0.1 us each."""
PEERS_A_HEARTBEAT = 2000
"""Peers of a session that may send their state at each heartbeat: a message takes 0.2 ms of the coordinator."""
SHORTER_BELOW = 0.75
"""Share of the peers from which on the heartbeats were fewer, below which they are fewer again: some leave and join."""
SEND_TIMEOUT = 5.0
"""Seconds in which a peer must take a message."""
BURST = 5.0
"""Seconds of messages that a peer may send at once after a silence."""
MAX_PEERS = 10_000
"""Most peers of one session."""

_numbers = itertools.count()


class GrantSource(Protocol):
    """Decides which peer may download which piece: `Leases`, or an `Assembly`."""

    def grant(self, now: float) -> Mapping[str, Grant]:
        """Every peer's grant from now on, by name."""

    def leave(self, name: str) -> None:
        """Remove a peer that has gone."""


@dataclass(eq=False, slots=True)
class SessionPeer:
    """One connection. `message` is the latest message for the peer; `sending` sends it when `changed` is set."""

    request: web.Request
    socket: web.WebSocketResponse
    joined: float
    grant: Grant | None = None
    message: CoordinatorMessage | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    sending: asyncio.Task[None] | None = None

    def abort(self) -> None:
        """Break the connection without a closing handshake."""
        if self.request.transport:
            self.request.transport.abort()


@dataclass(frozen=True, slots=True)
class SessionUpdate:
    """What all peers are sent beside their grants. Peers that joined after `late_after` are late."""

    sources: tuple[Source, ...] = ()
    late_after: float = math.inf
    lost_source: bool = False
    assembled: str = ""
    left: int = 0
    partial_torrents: tuple[str, ...] = ()
    heartbeats: int = 1
    """As in `CoordinatorMessage`."""
    expects_more: bool = False
    """Whether more peers are about to come: the only one is not told that it is alone."""

    def message_to(self, peer: SessionPeer, grant: Grant) -> CoordinatorMessage:
        """The message to one peer."""
        if self.expects_more and grant.peers == 1:
            grant = replace(grant, peers=2)
        late = peer.joined > self.late_after
        return CoordinatorMessage(
            grant,
            self.sources,
            late,
            self.assembled,
            self.left,
            self.partial_torrents,
            lost_source=self.lost_source,
            heartbeats=self.heartbeats,
        )


def heartbeats_of(peers: int, before: int = 1) -> int:
    """After how many heartbeats each of `peers` sends its state; it was `before` when there were more or fewer."""
    wanted = min(max(math.ceil(peers / PEERS_A_HEARTBEAT), 1), MOST_HEARTBEATS)
    keeps = wanted < before and peers >= SHORTER_BELOW * PEERS_A_HEARTBEAT * (before - 1)
    return before if keeps else wanted


class PeerSession:
    """The peers of one swarm or assembly. `update` returns what all of them are sent at that moment.

    `messages_per_second`: a peer that sends more messages is read more slowly.
    """

    def __init__(
        self,
        granting: GrantSource,
        update: Callable[[], SessionUpdate],
        *,
        clock: Callable[[], float] = time.monotonic,
        messages_per_second: float = math.inf,
    ) -> None:
        self._message_gap = 1 / messages_per_second
        self._granting = granting
        self._update = update
        self._clock = clock
        self._peers: dict[str, SessionPeer] = {}
        """In the order in which they joined."""
        self._last_update: SessionUpdate | None = None
        self._heartbeats = 1
        self._soon: asyncio.Task[None] | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._peers)

    @property
    def first_joined(self) -> float:
        """When the first of the present peers joined."""
        return next((peer.joined for peer in self._peers.values()), 0.0)

    async def serve(
        self, request: web.Request, socket: web.WebSocketResponse, receive: Callable[[str, str], None]
    ) -> None:
        """Serve a peer until its connection ends. `receive(name, text)` gets its messages; InvalidInput ends it."""
        identity = request.query.get("id") or str(next(_numbers))
        name = f"{printable(request.query.get('peer', '?'), 64)}#{printable(identity, 64)}"
        peer = SessionPeer(request, socket, self._clock())
        self._enter(name, peer)
        try:
            await self._receive_all(name, peer, receive)
        finally:
            if peer.sending:
                peer.sending.cancel()
            self._leave(name, peer)

    def grant_soon(self) -> None:
        """Compute the grants anew soon: something has changed."""
        if self._soon is None and not self._closed:
            self._soon = asyncio.get_running_loop().create_task(self._grant())

    async def close(self, code: int = WSCloseCode.GOING_AWAY, reason: str = "") -> None:
        """Close all connections."""
        self._closed = True
        if self._soon is not None:
            self._soon.cancel()
        closing = (peer.socket.close(code=code, message=_short(reason)) for peer in list(self._peers.values()))
        await asyncio.gather(*closing, return_exceptions=True)

    def _enter(self, name: str, peer: SessionPeer) -> None:
        if before := self._peers.pop(name, None):
            before.abort()
        self._peers[name] = peer
        peer.sending = asyncio.get_running_loop().create_task(_send_all(peer))

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

    async def _receive_all(self, name: str, peer: SessionPeer, receive: Callable[[str, str], None]) -> None:
        due = self._clock()
        async for message in peer.socket:
            # What is not read fills the connection's window, and the peer waits.
            due = max(due, self._clock() - BURST) + self._message_gap
            if (early := due - self._clock()) > 0:
                await asyncio.sleep(early)
            if message.type is not WSMsgType.TEXT or self._peers.get(name) is not peer:
                break
            try:
                receive(name, message.data)
            except InvalidInput as error:
                await refuse(peer.socket, error)
                break
            self.grant_soon()

    async def _grant(self) -> None:
        await asyncio.sleep(GATHER + GATHER_A_PEER * len(self._peers))
        self._soon = None
        self._heartbeats = heartbeats_of(len(self._peers), self._heartbeats)
        update = replace(self._update(), heartbeats=self._heartbeats)
        as_before, self._last_update = update == self._last_update, update
        for name, grant in self._granting.grant(self._clock()).items():
            peer = self._peers.get(name)
            if peer is None or (as_before and peer.grant is grant):
                continue
            peer.grant = grant
            message = update.message_to(peer, grant)
            if peer.message is None or not _same(peer.message, message):
                peer.message = message
                peer.changed.set()


async def accept(request: web.Request, session: PeerSession | None) -> web.WebSocketResponse:
    """Accept the connection of a peer that joins `session`. Raises UpgradeRequired where it is no WebSocket."""
    if session is not None and len(session) >= MAX_PEERS:
        raise InvalidInput(f"this swarm has {MAX_PEERS} peers already")
    socket = web.WebSocketResponse(heartbeat=10 * HEARTBEAT, max_msg_size=MAX_MESSAGE, timeout=SEND_TIMEOUT)
    if not socket.can_prepare(request):
        raise UpgradeRequired(NO_UPGRADE, hint=f"a proxy must pass it on; for nginx: {NGINX_UPGRADE}")
    await socket.prepare(request)
    return socket


async def refuse(socket: web.WebSocketResponse, error: P2PModelError) -> None:
    """Close the connection of a peer that sent an invalid message, or has no right."""
    await socket.close(code=WSCloseCode.UNSUPPORTED_DATA, message=_short(str(error)))


async def _send_all(peer: SessionPeer) -> None:
    """Send the latest message whenever it changes. A peer that does not read is disconnected and delays no other."""
    sent: CoordinatorMessage | None = None
    while True:
        await peer.changed.wait()
        peer.changed.clear()
        message = peer.message
        if message is None or (sent and _same(sent, message)):
            continue
        sent = message
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                await peer.socket.send_str(message_text(message))
        except (ConnectionError, TimeoutError, RuntimeError):
            return peer.abort()


def _same(one: CoordinatorMessage, other: CoordinatorMessage) -> bool:
    """Whether `other` need not be sent after `one`.

    A change of the byte count alone is not sent. Nor is the number of other peers while there are any: in a swarm of
    ten thousand each peer that joins or leaves would cost ten thousand messages.
    """
    grant = one.grant is other.grant or _essence(one.grant) == _essence(other.grant)
    assembly = (one.assembled, one.left, one.partial_torrents) == (other.assembled, other.left, other.partial_torrents)
    same = (one.late, one.heartbeats) == (other.late, other.heartbeats)
    return grant and assembly and same and one.sources == other.sources


def _essence(grant: Grant) -> tuple[object, ...]:
    return grant.pieces, grant.refused, grant.peers > 1, grant.crossings


def _short(text: str) -> bytes:
    return text.encode()[:100]
