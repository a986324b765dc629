"""A node's connection to one coordinator about one private swarm (`coordinator/private/messages`)."""

import asyncio
from collections.abc import Callable

import aiohttp
from aiohttp import WSCloseCode

from p2pmodel import http_pool
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.transport import NETWORK_ERRORS, reason
from p2pmodel.coordinator.private.messages import (
    MAX_MEMBERSHIP,
    MembershipGrant,
    MembershipRequest,
    membership_path,
    parse_membership,
    text_of,
)
from p2pmodel.core.content.names import printable
from p2pmodel.errors import AccessDenied, InvalidInput, NotFound, P2PModelError, Unavailable, restored
from p2pmodel.http_pool import HttpPool

RECONNECT = 2.0
"""Seconds between attempts."""
FIRST_SECONDS = 15.0
"""Seconds in which a coordinator sends its first message: it collects nodes that come together."""
_HEARTBEAT = 10.0
_STATUS: dict[int, type[P2PModelError]] = {400: InvalidInput, 401: AccessDenied, 403: AccessDenied, 404: NotFound}


class MembershipConnection:
    """Stays connected to `coordinator`. `on_membership` gets each message; `on_failure` why there is none now."""

    def __init__(
        self,
        coordinator: Coordinator,
        info_hash: str,
        asked: MembershipRequest,
        *,
        timeout: float,
        on_membership: Callable[[MembershipGrant], None],
        on_failure: Callable[[P2PModelError], None],
        http: HttpPool | None = None,
    ) -> None:
        self._coordinator = coordinator
        self._url = coordinator.url + membership_path(info_hash)
        self._asked = asked
        self._timeout = timeout
        self._http = http
        self._on_membership = on_membership
        self._on_failure = on_failure

    async def run(self) -> None:
        """Connect, and connect again after each failure, until cancelled. Raises nothing."""
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout)
        async with http_pool.session(self._http, timeout=limits) as session:
            while True:
                try:
                    await self._stay(session)
                except P2PModelError as error:
                    self._on_failure(error)
                except aiohttp.WSServerHandshakeError as error:
                    self._on_failure(self._refused(error))
                except NETWORK_ERRORS as error:
                    self._on_failure(Unavailable(f"coordinator {self._coordinator} cannot be reached: {reason(error)}"))
                await asyncio.sleep(RECONNECT)

    async def _stay(self, session: aiohttp.ClientSession) -> None:
        """Be connected until the connection ends. Raises AccessDenied where the coordinator puts this node out."""
        async with asyncio.timeout(self._timeout):
            socket = await session.ws_connect(
                self._url,
                headers=self._coordinator.headers,
                ssl=self._coordinator.tls,
                heartbeat=_HEARTBEAT,
                max_msg_size=MAX_MEMBERSHIP,
            )
        async with socket:
            await socket.send_str(text_of(self._asked))
            patience: float | None = FIRST_SECONDS  # later messages come with changes alone
            while (received := await socket.receive(patience)).type is aiohttp.WSMsgType.TEXT:
                self._on_membership(parse_membership(received.data))
                patience = None
            if socket.close_code == WSCloseCode.POLICY_VIOLATION:
                why = printable(str(received.extra or "it does not say why"), 200)
                raise AccessDenied(f"coordinator {self._coordinator} has put this node out of the swarm: {why}")
            if socket.close_code == WSCloseCode.UNSUPPORTED_DATA:
                why = printable(str(received.extra or "the request"), 200)
                raise InvalidInput(f"coordinator {self._coordinator} refuses the certificate request: {why}")
        raise Unavailable(f"coordinator {self._coordinator} has ended the connection")

    def _refused(self, error: aiohttp.WSServerHandshakeError) -> P2PModelError:
        what = f"coordinator {self._coordinator} admits this node not to the private swarm ({error.status})"
        kind = _STATUS.get(error.status, Unavailable)
        return restored(kind.code, what, hint="check coordinator_token_file, and the access of this node there")
