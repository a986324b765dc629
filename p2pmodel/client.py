"""The control API of a node's daemon, as its clients call it: over its unix socket, or over TCP, with the words of the
domain.

The daemon's errors come back as the errors they were. Every call is bounded, but for `watch`, which is bounded in
silence: a daemon says something every few seconds.
"""

import base64
import errno
import io
import json
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp
from pydantic import TypeAdapter, ValidationError

from p2pmodel.core.connections import PeerConnection
from p2pmodel.core.diagnosis import Diagnosis
from p2pmodel.core.names import printable
from p2pmodel.core.views import LimitsView, NodeView, RateLimits, RemovedSnapshot, SnapshotView, SwarmView, TransferView
from p2pmodel.errors import AccessDenied, Conflict, P2PModelError, Unavailable, restored

T = TypeVar("T")

CALL_SECONDS = 30.0
START_SECONDS = 300.0
"""To find out what a snapshot is: coordinators and mirrors are asked, each with its own bound."""
SILENCE_SECONDS = 30.0
MAX_EVENT = 1 << 20


class NoDaemon(Unavailable):
    """Nobody listens at the socket."""

    code = "no_daemon"


@dataclass(frozen=True, slots=True)
class Server:
    """A daemon's address over TCP, the token it asks for, and the TLS context to ask it with (None: the default)."""

    url: str
    token: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None


class Client:
    """A connection to the daemon at `where`: its unix socket, or over TCP. `async with` opens and closes it."""

    def __init__(self, where: Path | Server) -> None:
        self._where = where
        self._base = "http://localhost" if isinstance(where, Path) else where.url

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=_connector(self._where),
            headers=_credentials(self._where),
            read_bufsize=MAX_EVENT,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._session.close()

    async def node(self) -> NodeView:
        """The daemon's node."""
        return await self._ask(NodeView, "GET", "node")

    async def start(
        self,
        target: str | bytes,
        *,
        revision: str | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        peers: Sequence[str] = (),
        priority: int | None = None,
    ) -> TransferView:
        """Have a snapshot brought to the node. `target` is its name, a URL or magnet, or the bytes of a .torrent.

        Returns once it is known which snapshot that is.
        """
        body: dict[str, Any] = (
            {"torrent": base64.b64encode(target).decode()} if isinstance(target, bytes) else {"target": target}
        )
        body |= {"revision": revision, "priority": priority}
        body |= {"include": list(include), "exclude": list(exclude), "peers": list(peers)}
        return await self._ask(TransferView, "POST", "transfers", body=body, timeout=START_SECONDS)

    async def transfers(self) -> tuple[TransferView, ...]:
        """All transfers, oldest first."""
        return await self._ask(tuple[TransferView, ...], "GET", "transfers")

    async def transfer(self, ident: str) -> TransferView:
        """One transfer."""
        return await self._ask(TransferView, "GET", f"transfers/{ident}")

    async def why(self, ident: str) -> Diagnosis:
        """What bounds it now; takes a second."""
        return await self._ask(Diagnosis, "GET", f"transfers/{ident}/why")

    async def pause(self, ident: str) -> TransferView:
        """Stop it until it is resumed."""
        return await self._ask(TransferView, "POST", f"transfers/{ident}/pause")

    async def resume(self, ident: str) -> TransferView:
        """Go on with it."""
        return await self._ask(TransferView, "POST", f"transfers/{ident}/resume")

    async def cancel(self, ident: str) -> TransferView:
        """Forget it; its files stay."""
        return await self._ask(TransferView, "POST", f"transfers/{ident}/cancel")

    async def prioritise(self, ident: str, priority: int) -> TransferView:
        """Let it go before those of lower priority."""
        return await self._ask(TransferView, "PATCH", f"transfers/{ident}", body={"priority": priority})

    async def engine(self, ident: str, *, ready: bool, seconds: float | None = None) -> TransferView:
        """Say whether an inference engine has the model up, and for how many seconds to believe it (None: for good)."""
        body = {"ready": ready, "seconds": seconds}
        return await self._ask(TransferView, "PUT", f"transfers/{ident}/engine", body=body)

    async def snapshots(self) -> tuple[SnapshotView, ...]:
        """What the node's cache holds."""
        return await self._ask(tuple[SnapshotView, ...], "GET", "snapshots")

    async def remove(self, ref: str) -> RemovedSnapshot:
        """Take the snapshot that `ref`, as in REPO@REV, means out of the cache, and forget its transfer."""
        return await self._ask(RemovedSnapshot, "DELETE", "snapshots", query={"ref": ref}, timeout=START_SECONDS)

    async def peers(self) -> tuple[SwarmView, ...]:
        """The peers of each transfer: how many, and the busiest."""
        return await self._ask(tuple[SwarmView, ...], "GET", "peers")

    async def connections(self, ident: str) -> tuple[PeerConnection, ...]:
        """Whom a transfer exchanges bytes with, the busiest first."""
        return await self._ask(tuple[PeerConnection, ...], "GET", f"transfers/{ident}/peers")

    async def limits(self) -> LimitsView:
        """What the node exchanges with peers at most."""
        return await self._ask(LimitsView, "GET", "limits")

    async def limit(self, limits: RateLimits) -> LimitsView:
        """Change it, until the daemon starts anew."""
        return await self._ask(LimitsView, "PUT", "limits", body={"upload": limits.upload, "download": limits.download})

    async def watch(self, ident: str | None = None) -> AsyncIterator[TransferView | str]:
        """The state of one transfer, or of all, now and at each change; the id of one that is gone.

        Ends when the one is gone. Raises Unavailable when the daemon stops.
        """
        path = f"transfers/{ident}/events" if ident else "events"
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CALL_SECONDS, sock_read=SILENCE_SECONDS)
        try:
            async with self._session.get(self._url(path), timeout=limits) as response:
                await _check(response)
                async for kind, data in _events(response):
                    yield _decode(str, data) if kind == "gone" else _decode(TransferView, data)
                    if ident and kind == "gone":
                        return
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._lost(error) from None
        raise Unavailable("the daemon has stopped", hint="what was verified is kept: it goes on when it runs again")

    async def _ask(
        self,
        kind: type[T],
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        timeout: float = CALL_SECONDS,
    ) -> T:
        limits = aiohttp.ClientTimeout(total=timeout)
        data = None if body is None else io.BytesIO(json.dumps(body).encode())
        headers = {"Content-Type": "application/json"} if data else None
        try:
            async with self._session.request(
                method, self._url(path), data=data, headers=headers, params=query, timeout=limits
            ) as response:
                await _check(response)
                return _decode(kind, await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._lost(error) from None

    def _url(self, path: str) -> str:
        return f"{self._base}/api/v1/{path}"

    def _lost(self, error: Exception) -> P2PModelError:
        place = self._where if isinstance(self._where, Path) else self._where.url
        if isinstance(error, aiohttp.ClientSSLError):
            return Unavailable(f"no TLS connection to {place}: {_tls_trouble(error)}", hint="see --ca-file")
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
            return AccessDenied(f"the daemon's socket {place} is another user's", hint="be that user, or do without")
        if isinstance(error, aiohttp.ClientConnectorError | FileNotFoundError):
            return NoDaemon(f"no daemon is running (looked for {place})", hint="start one with 'p2pmodel daemon'")
        if isinstance(error, TimeoutError):
            return Unavailable("the daemon does not answer", hint="see its log")
        return Unavailable("the daemon has stopped", hint="what was verified is kept: it goes on when it runs again")


def _connector(where: Path | Server) -> aiohttp.BaseConnector:
    if isinstance(where, Path):
        return aiohttp.UnixConnector(str(where))
    return aiohttp.TCPConnector(ssl=where.tls or True)


def _credentials(where: Path | Server) -> dict[str, str]:
    token = where.token if isinstance(where, Server) else None
    return {"Authorization": f"Bearer {token}"} if token else {}


def _tls_trouble(error: aiohttp.ClientSSLError) -> str:
    inner = error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else error.os_error
    said = getattr(inner, "verify_message", None) or getattr(inner, "reason", None) or inner
    return str(said).replace("_", " ").lower()


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status == 200:
        return
    try:
        plain = await response.json()
        code, message, hint = (str(plain[key]) for key in ("code", "message", "hint"))
    except (ValueError, KeyError, TypeError, aiohttp.ContentTypeError):
        raise Unavailable(f"the daemon answered {response.status} without saying why") from None
    raise restored(code, message, hint=hint)


def _decode(kind: type[T], data: bytes) -> T:
    try:
        return TypeAdapter(kind).validate_json(data)
    except ValidationError:
        raise Conflict(
            f"the daemon says what this program does not understand: {printable(data[:60].decode(errors='replace'))}",
            hint="restart the daemon, so that both are of one version",
        ) from None


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, bytes]]:
    kind = ""
    async for line in response.content:
        if line.startswith(b"event: "):
            kind = line[7:].strip().decode()
        elif line.startswith(b"data: "):
            yield kind, line[6:].strip()
