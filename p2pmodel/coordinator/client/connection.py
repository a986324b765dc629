"""A peer's connection to its coordinator: sends this peer's state, and holds the coordinator's latest message.

A connection is read, it calls nothing: `grant`, `sources`, `peers`, `alone_for` and `lost_for` describe what the
coordinator sent last, and `next_change` returns once that changes.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import aiohttp

from p2pmodel import http_pool
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.leases.demand import Grant
from p2pmodel.coordinator.leases.messages import (
    HEARTBEAT,
    MAX_MESSAGE,
    NGINX_UPGRADE,
    CoordinatorMessage,
    parse_message,
)
from p2pmodel.coordinator.tokens import MEMBER_SETTING
from p2pmodel.coordinator.tracker.sources import Source
from p2pmodel.core import notes
from p2pmodel.errors import InvalidInput
from p2pmodel.http_pool import HttpPool

RECONNECT = 2.0
"""Seconds until the coordinators are tried again after none accepted, or a connection broke."""
LEAST_PAUSE = 0.02
"""Seconds between messages about changes: several pieces may come at once."""
_NO_TOKEN = f"it does not accept the token; check {MEMBER_SETTING}"
_NO_WEBSOCKET = f"a proxy in front of it passes on no WebSocket; nginx needs: {NGINX_UPGRADE}"
_REFUSALS = {401: _NO_TOKEN, 403: _NO_TOKEN, 426: _NO_WEBSOCKET}
"""Why a coordinator refuses connections, by the status of its answer."""
_NETWORK_ERRORS = (aiohttp.ClientError, TimeoutError, OSError)


def _no_redirects() -> aiohttp.TraceConfig:
    """A WebSocket request follows redirects, which a coordinator does not send."""

    async def refuse(*_: object) -> None:
        raise aiohttp.ClientError("a redirect")

    tracing = aiohttp.TraceConfig()
    tracing.on_request_redirect.append(refuse)
    return tracing


class PeerState(Protocol):
    """The messages that a peer sends to its coordinator."""

    def opening(self) -> Sequence[str]:
        """Messages that begin each connection."""

    def message(self) -> str:
        """The current state."""


class CoordinatorConnection:
    """A connection to the first of `coordinators` that accepts this peer, at `path` below its base URL.

    `peer` is this peer's address in the swarm, `query` further parameters of the URL, `timeout` the seconds in which
    a coordinator must accept the connection and send its first message, `http` connections to share. `on_note` is
    called once for a coordinator that refuses this peer. All times are
    `time.monotonic()`.
    """

    def __init__(
        self,
        coordinators: Sequence[Coordinator],
        path: str,
        *,
        peer: str,
        timeout: float,
        query: Mapping[str, str] = MappingProxyType({}),
        http: HttpPool | None = None,
        on_note: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._on_note = on_note
        self._refused: set[Coordinator] = set()
        self._coordinators = coordinators
        self._path = path
        self._http = http
        # The id identifies this peer, and what it has downloaded, after a broken connection.
        self._parameters = {**query, "peer": peer, "id": secrets.token_hex(8)}
        self._timeout = timeout
        self._message: CoordinatorMessage | None = None
        self._coordinator: Coordinator | None = None
        self._address = ""
        self._since = time.monotonic()
        """Since when this peer is alone, or without a coordinator."""
        self._state_changed = asyncio.Event()
        self._answered = asyncio.Event()
        self._next_change = asyncio.Event()

    # -- what the coordinator sent last ----------------------------------------------------------------------

    @property
    def coordinator(self) -> Coordinator | None:
        """The coordinator that sent the last message; None before the first one."""
        return self._coordinator

    @property
    def coordinator_address(self) -> str:
        """Network address of the coordinator that sent the last message; "" if it is unknown."""
        return self._address

    @property
    def message(self) -> CoordinatorMessage | None:
        """The last message; None without a coordinator."""
        return self._message

    @property
    def grant(self) -> Grant | None:
        """The pieces that this peer may download; None without a coordinator."""
        return self._message.grant if self._message else None

    @property
    def lost_source(self) -> bool:
        """Whether a seeder of the coordinator has just gone, and may come back."""
        return bool(self._message and self._message.lost_source)

    @property
    def sources(self) -> tuple[Source, ...]:
        """The seeders that the coordinator lists."""
        return self._message.sources if self._message else ()

    @property
    def peers(self) -> int:
        """Peers that the coordinator serves, this one included; 0 without a coordinator."""
        return self._message.grant.peers if self._message else 0

    def alone_for(self, now: float) -> float:
        """Seconds for which this peer has been the coordinator's only one; 0 while it is not."""
        return now - self._since if self.peers == 1 else 0.0

    def lost_for(self, now: float) -> float:
        """Seconds without a coordinator; 0 while there is one."""
        return now - self._since if self._message is None else 0.0

    # -- waiting and sending ---------------------------------------------------------------------------------

    async def answered(self) -> None:
        """Return once a coordinator has sent a message, or all of them have been tried, or after `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                await self._answered.wait()

    async def next_change(self) -> None:
        """Return once another message has come, or the coordinator is lost. Changes before the call do not count."""
        await self._next_change.wait()

    def changed(self) -> None:
        """Send the state soon: it has changed."""
        self._state_changed.set()

    async def run(self, state: PeerState) -> None:
        """Stay connected until cancelled, reconnecting after each failure; raises nothing.

        `state` is sent when `changed()` was called, and as often as the coordinator says, by default every `HEARTBEAT`
        seconds.
        """
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout)
        async with http_pool.session(self._http, timeout=limits, trace_configs=[_no_redirects()]) as session:
            while True:
                for coordinator in self._coordinators:
                    await self._stay(session, coordinator, state)
                self._answered.set()
                await asyncio.sleep(RECONNECT)

    async def _stay(self, session: aiohttp.ClientSession, coordinator: Coordinator, state: PeerState) -> None:
        """Be connected to one coordinator until the connection ends."""
        try:
            async with self._connected(session, coordinator) as socket, asyncio.TaskGroup() as group:
                sending = group.create_task(self._send(socket, state))
                await self._receive(socket, coordinator)
                sending.cancel()
        except* aiohttp.WSServerHandshakeError as errors:
            self._note_refusal(coordinator, errors)
        except* _NETWORK_ERRORS:
            pass
        except* InvalidInput:  # a malformed message: the next coordinator is tried
            pass
        finally:
            if coordinator == self._coordinator:
                self._update(None)

    def _note_refusal(
        self, coordinator: Coordinator, errors: "BaseExceptionGroup[aiohttp.WSServerHandshakeError]"
    ) -> None:
        """Note once that the coordinator does not accept this node's token, or that a proxy lets no WebSocket pass."""
        statuses = {e.status for e in errors.exceptions if isinstance(e, aiohttp.WSServerHandshakeError)}
        why = next((reason for status, reason in _REFUSALS.items() if status in statuses), "")
        if why and coordinator not in self._refused:
            self._refused.add(coordinator)
            text = f"coordinator {coordinator} gives no leases: {why}"
            self._on_note(notes.warning("leases_refused", text, coordinator=str(coordinator)))

    @contextlib.asynccontextmanager
    async def _connected(
        self, session: aiohttp.ClientSession, coordinator: Coordinator
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        url = coordinator.url + self._path
        async with asyncio.timeout(self._timeout):
            socket = await session.ws_connect(
                url,
                params=self._parameters,
                headers=coordinator.headers,
                ssl=coordinator.tls,
                heartbeat=10 * HEARTBEAT,
                max_msg_size=MAX_MESSAGE,
            )
        async with socket:
            yield socket

    async def _send(self, socket: aiohttp.ClientWebSocketResponse, state: PeerState) -> None:
        for text in state.opening():
            await socket.send_str(text)
        while True:
            self._state_changed.clear()
            await socket.send_str(state.message())
            await asyncio.sleep(LEAST_PAUSE)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT * (self._message.heartbeats if self._message else 1)):
                    await self._state_changed.wait()

    async def _receive(self, socket: aiohttp.ClientWebSocketResponse, coordinator: Coordinator) -> None:
        patience: float | None = self._timeout  # for the first message: later ones come only with changes
        while (received := await socket.receive(patience)).type is aiohttp.WSMsgType.TEXT:
            message = parse_message(received.data)
            self._coordinator = coordinator
            self._address = str((socket.get_extra_info("peername") or ("",))[0])
            self._update(message)
            self._answered.set()
            patience = None

    def _update(self, message: CoordinatorMessage | None) -> None:
        with_others = message is not None and message.grant.peers > 1
        if with_others or (message is None) != (self._message is None):
            self._since = time.monotonic()
        self._message = message
        changed, self._next_change = self._next_change, asyncio.Event()
        changed.set()
