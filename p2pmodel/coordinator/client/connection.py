"""A peer's side of leases and births: telling a coordinator what is lacking, hearing what is ours to pull."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import MappingProxyType

import aiohttp

from p2pmodel.coordinator.lease_messages import HEARTBEAT, MAX_MESSAGE, CoordinatorMessage, demand_text, parse_word
from p2pmodel.coordinator.leases import Demand
from p2pmodel.errors import InvalidInput

RECONNECT = 2.0
"""Seconds until the coordinators are asked again after none answered, or a connection broke."""
LEAST_PAUSE = 0.02
"""Seconds between words that tell of changes: several pieces may come at once."""
_NETWORK_ERRORS = (aiohttp.ClientError, TimeoutError, OSError)


class CoordinatorConnection:
    """Being at the first of `coordinators` that has us, below its `path`, until cancelled.

    `say` is asked for our state whenever it is told; `changed()` makes that soon. `on_word` is called with every word
    of the coordinator, and with None when there is none any more. `greet` gives what is told first on each connection,
    `query` what its address says of us.
    """

    def __init__(
        self,
        coordinators: Sequence[str],
        path: str,
        *,
        peer: str,
        say: Callable[[], str],
        on_word: Callable[[str, CoordinatorMessage | None], None],
        timeout: float,
        greet: Callable[[], Sequence[str]] = tuple,
        query: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._coordinators = coordinators
        self._path = path
        # By the id we are known again after a broken connection, with what we have pulled.
        self._us = {**query, "peer": peer, "id": secrets.token_hex(8)}
        self._say = say
        self._on_word = on_word
        self._timeout = timeout
        self._greet = greet
        self._news = asyncio.Event()
        self._answered = asyncio.Event()

    async def answered(self) -> None:
        """Return once a coordinator has given its word, or every one of them has been asked in vain, or after `timeout`
        seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                await self._answered.wait()

    def changed(self) -> None:
        """Our state has changed."""
        self._news.set()

    async def run(self) -> None:
        """Stay connected until cancelled; it never gives up and raises nothing."""
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout)
        async with aiohttp.ClientSession(timeout=limits) as session:
            while True:
                for coordinator in self._coordinators:
                    await self._stay(session, coordinator)
                self._answered.set()
                await asyncio.sleep(RECONNECT)

    async def _stay(self, session: aiohttp.ClientSession, coordinator: str) -> None:
        """Be connected to one coordinator for as long as it lasts."""
        try:
            async with self._connected(session, coordinator) as socket, asyncio.TaskGroup() as group:
                telling = group.create_task(self._tell(socket))
                await self._hear(socket, coordinator)
                telling.cancel()
        except* _NETWORK_ERRORS:
            pass
        except* InvalidInput:  # it speaks another language: as good as none
            pass
        finally:
            self._on_word(coordinator, None)

    @contextlib.asynccontextmanager
    async def _connected(
        self, session: aiohttp.ClientSession, coordinator: str
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        url = coordinator.rstrip("/") + self._path
        async with asyncio.timeout(self._timeout):
            socket = await session.ws_connect(url, params=self._us, heartbeat=10 * HEARTBEAT, max_msg_size=MAX_MESSAGE)
        async with socket:
            yield socket

    async def _tell(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        for text in self._greet():
            await socket.send_str(text)
        while True:
            self._news.clear()
            await socket.send_str(self._say())
            await asyncio.sleep(LEAST_PAUSE)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT):
                    await self._news.wait()

    async def _hear(self, socket: aiohttp.ClientWebSocketResponse, coordinator: str) -> None:
        patience: float | None = self._timeout  # for the first word: later ones come when there is news
        while (message := await socket.receive(patience)).type is aiohttp.WSMsgType.TEXT:
            self._on_word(coordinator, parse_word(message.data))
            self._answered.set()
            patience = None


class LeaseConnection(CoordinatorConnection):
    """One swarm's leases. `demand` is asked for what we lack."""

    def __init__(
        self,
        coordinators: Sequence[str],
        info_hash: str,
        piece_count: int,
        *,
        peer: str,
        demand: Callable[[], Demand],
        on_word: Callable[[str, CoordinatorMessage | None], None],
        timeout: float,
    ) -> None:
        super().__init__(
            coordinators,
            f"/leases/{info_hash}",
            peer=peer,
            say=lambda: demand_text(demand(), piece_count),
            on_word=on_word,
            timeout=timeout,
        )
