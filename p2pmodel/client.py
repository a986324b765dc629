"""A client of the control API of a daemon, over its unix socket or over TCP, with the types of `core`.

Errors of the daemon are raised with their original class. Every call has a timeout; `watch` has one for silence only,
since the daemon sends something every few seconds.
"""

import base64
import errno
import io
import json
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp
from aiohttp.http import HttpProcessingError
from pydantic import TypeAdapter, ValidationError

from p2pmodel.core.content.names import RepoId, printable, transfer_id
from p2pmodel.core.content.request_window import FileRange
from p2pmodel.core.network.connections import PeerConnection
from p2pmodel.core.plain_json import parse_json
from p2pmodel.core.progress.diagnosis import Diagnosis
from p2pmodel.core.progress.progress import FileProgress
from p2pmodel.core.progress.views import (
    SERVING,
    EngineState,
    FirstPiecesView,
    FollowView,
    LimitsView,
    NodeView,
    RateLimits,
    Readiness,
    RemovedSnapshot,
    ScrubView,
    SnapshotView,
    SwarmView,
    TransferView,
)
from p2pmodel.errors import AccessDenied, Conflict, P2PModelError, Unavailable, restored
from p2pmodel.http_pool import read_bounded, sent_events

T = TypeVar("T")

CALL_SECONDS = 30.0
START_SECONDS = 300.0
"""Bound on the start of a transfer: it queries coordinators and mirrors, each with its own timeout."""
SILENCE_SECONDS = 30.0
MAX_EVENT = 1 << 20
MAX_ANSWER = 64 << 20
"""Bytes of the longest answer."""
_RESUMES = "verified data is kept; the transfer resumes when the daemon runs again"


class NoDaemon(Unavailable):
    """No process listens at the socket or address."""

    code = "no_daemon"


@dataclass(frozen=True, slots=True)
class Server:
    """A daemon's URL over TCP, its token, and the TLS context for it (None: the default)."""

    url: str
    token: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None


class Client:
    """A session with the daemon at `where`: a unix socket or a Server. `async with` opens and closes it."""

    def __init__(self, where: Path | Server) -> None:
        self._where = where
        self._base = "http://localhost" if isinstance(where, Path) else where.url

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=_connector(self._where),
            headers=_credentials(self._where) | {"Accept-Encoding": "identity"},
            read_bufsize=MAX_EVENT,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._session.close()

    async def node(self) -> NodeView:
        """Version, cache and addresses of the node."""
        return await self._call(NodeView, "GET", "node")

    async def start(
        self,
        target: str | bytes,
        *,
        revision: str | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        peers: Sequence[str] = (),
        names: Sequence[str] = (),
        fresh: bool = False,
        priority: int | None = None,
        signatures: Sequence[Mapping[str, str]] = (),
    ) -> TransferView:
        """Start a transfer. `target`: REPO[@REV], a URL, a magnet, or the bytes of a .torrent. `names`: refs that will
        point at the commit. `fresh`: fail if no source answers, instead of taking the revision that is in the cache.
        `signatures`: signed statements that came with a .torrent, as JSON data.

        Returns once the target is resolved to a snapshot.
        """
        body: dict[str, Any] = (
            {"torrent": base64.b64encode(target).decode()} if isinstance(target, bytes) else {"target": target}
        )
        body |= {"revision": revision, "priority": priority}
        body |= {"include": list(include), "exclude": list(exclude), "peers": list(peers)}
        body |= {"names": list(names)} if names else {}
        body |= {"fresh": True} if fresh else {}
        body |= {"signatures": list(map(dict, signatures))} if signatures else {}
        return await self._call(TransferView, "POST", "transfers", body=body, timeout=START_SECONDS)

    async def transfers(self) -> tuple[TransferView, ...]:
        """All transfers, oldest first."""
        return await self._call(tuple[TransferView, ...], "GET", "transfers")

    async def transfer(self, ident: str) -> TransferView:
        """One transfer."""
        return await self._call(TransferView, "GET", f"transfers/{ident}")

    async def first(self, ident: str, places: Sequence[FileRange]) -> FirstPiecesView:
        """Request places of a transfer's files before all others."""
        body = {"places": [{"path": each.path, "start": each.start, "end": each.end} for each in places]}
        return await self._call(FirstPiecesView, "POST", f"transfers/{ident}/first", body=body)

    async def why(self, ident: str) -> Diagnosis:
        """What limits the rate of a transfer now; takes a second."""
        return await self._call(Diagnosis, "GET", f"transfers/{ident}/why")

    async def files(self, ident: str) -> tuple[FileProgress, ...]:
        """The files of a transfer; none before it knows them."""
        return await self._call(tuple[FileProgress, ...], "GET", f"transfers/{ident}/files")

    async def pause(self, ident: str) -> TransferView:
        """Stop downloading and seeding a transfer until it is resumed."""
        return await self._call(TransferView, "POST", f"transfers/{ident}/pause")

    async def resume(self, ident: str) -> TransferView:
        """Resume a transfer."""
        return await self._call(TransferView, "POST", f"transfers/{ident}/resume")

    async def cancel(self, ident: str) -> TransferView:
        """Remove a transfer, but not its files."""
        return await self._call(TransferView, "POST", f"transfers/{ident}/cancel")

    async def prioritise(self, ident: str, priority: int) -> TransferView:
        """Set the queue priority of a transfer; higher first."""
        return await self._call(TransferView, "PATCH", f"transfers/{ident}", body={"priority": priority})

    async def engine(self, ident: str, state: EngineState, *, seconds: float | None = None) -> TransferView:
        """Report what an inference engine does with the model. `seconds`: expiry of the report (None: never)."""
        body = {"ready": state in SERVING, "seconds": seconds} | ({} if state == "none" else {"state": state})
        return await self._call(TransferView, "PUT", f"transfers/{ident}/engine", body=body)

    async def snapshots(self) -> tuple[SnapshotView, ...]:
        """The snapshots in the node's cache."""
        return await self._call(tuple[SnapshotView, ...], "GET", "snapshots")

    async def remove(self, ref: str) -> RemovedSnapshot:
        """Remove the snapshot `ref` (REPO@REV) from the cache, and its transfer."""
        return await self._call(RemovedSnapshot, "DELETE", "snapshots", query={"ref": ref}, timeout=START_SECONDS)

    async def peers(self) -> tuple[SwarmView, ...]:
        """The number of peers of each transfer, and its busiest connections."""
        return await self._call(tuple[SwarmView, ...], "GET", "peers")

    async def connections(self, ident: str) -> tuple[PeerConnection, ...]:
        """The peer connections of a transfer, busiest first."""
        return await self._call(tuple[PeerConnection, ...], "GET", f"transfers/{ident}/peers")

    async def ready(self, model: str) -> Readiness:
        """Whether all requested files of the snapshot REPO@REV are complete and verified."""
        return await self._call(Readiness, "GET", "ready", query={"model": model})

    async def scrub(self) -> ScrubView:
        """The background check of the node's cache."""
        return await self._call(ScrubView, "GET", "scrub")

    async def follow_lists(self) -> tuple[FollowView, ...]:
        """The follow lists of the node."""
        return await self._call(tuple[FollowView, ...], "GET", "follow")

    async def limits(self) -> LimitsView:
        """The rate limits for peers."""
        return await self._call(LimitsView, "GET", "limits")

    async def limit(self, limits: RateLimits) -> LimitsView:
        """Set the rate limits until the daemon restarts."""
        return await self._call(
            LimitsView, "PUT", "limits", body={"upload": limits.upload, "download": limits.download}
        )

    async def watch(self, ident: str | None = None) -> AsyncIterator[TransferView | str]:
        """The view of one transfer, or of all, now and at each change; the id of a removed transfer.

        Ends when the one transfer is removed. Raises Unavailable when the daemon stops.
        """
        path = f"transfers/{ident}/events" if ident else "events"
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CALL_SECONDS, sock_read=SILENCE_SECONDS)
        try:
            async with self._session.get(self._url(path), timeout=limits, allow_redirects=False) as response:
                await _check(response)
                async for kind, data in sent_events(response):
                    yield _decode(str, data) if kind == "gone" else _decode(TransferView, data)
                    if ident and kind == "gone":
                        return
        except (ValueError, HttpProcessingError):
            raise Conflict("the daemon sent an event that cannot be read") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._lost(error) from None
        raise Unavailable("the daemon has stopped", hint=_RESUMES)

    async def _call(
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
                method,
                self._url(path),
                data=data,
                headers=headers,
                params=query,
                timeout=limits,
                allow_redirects=False,
            ) as response:
                await _check(response)
                answer = await read_bounded(response, MAX_ANSWER)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._lost(error) from None
        if answer is None:
            raise Conflict(f"the daemon sent more than {MAX_ANSWER >> 20} MiB")
        return _decode(kind, answer)

    def _url(self, path: str) -> str:
        return f"{self._base}/api/v1/{path}"

    def _lost(self, error: Exception) -> P2PModelError:
        place = self._where if isinstance(self._where, Path) else self._where.url
        if isinstance(error, aiohttp.ClientSSLError):
            return Unavailable(f"no TLS connection to {place}: {_tls_reason(error)}", hint="see --ca-file")
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
            return AccessDenied(
                f"the daemon's socket {place} belongs to another user", hint="run as that user, or without the daemon"
            )
        if isinstance(error, aiohttp.ClientConnectorError | FileNotFoundError):
            return NoDaemon(f"no daemon is running (looked for {place})", hint="start one with 'p2pmodel daemon'")
        if isinstance(error, TimeoutError):
            return Unavailable("the daemon does not answer", hint="see its log")
        return Unavailable("the daemon has stopped", hint=_RESUMES)


class DaemonOrder:
    """The order in which the daemon at `where` downloads: places that a load beside it waits for come first."""

    def __init__(self, where: Path | Server) -> None:
        self._where = where

    async def request(self, repo: RepoId, commit: str, places: Sequence[FileRange]) -> bool:
        """Whether the snapshot comes from a swarm. A daemon that does not take the request changes no order: then the
        load goes on as the files arrive."""
        with suppress(P2PModelError):
            async with Client(self._where) as client:
                return (await client.first(transfer_id(repo, commit), places)).in_swarm
        return False


def _connector(where: Path | Server) -> aiohttp.BaseConnector:
    if isinstance(where, Path):
        return aiohttp.UnixConnector(str(where))
    return aiohttp.TCPConnector(ssl=where.tls or True)


def _credentials(where: Path | Server) -> dict[str, str]:
    token = where.token if isinstance(where, Server) else None
    return {"Authorization": f"Bearer {token}"} if token else {}


def _tls_reason(error: aiohttp.ClientSSLError) -> str:
    inner = error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else error.os_error
    reason = getattr(inner, "verify_message", None) or getattr(inner, "reason", None) or inner
    return str(reason).replace("_", " ").lower()


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status == 200:
        return
    try:
        plain = parse_json(await read_bounded(response, MAX_EVENT) or b"")
        code, message, hint = (printable(str(plain[key]), 500) for key in ("code", "message", "hint"))
    except (ValueError, KeyError, TypeError):
        what = f"the daemon answered HTTP {response.status} without a reason"
        raise restored("", what, hint="check the address and the token", status=response.status) from None
    raise restored(code, message, hint=hint)


def _decode(kind: type[T], data: bytes) -> T:
    try:
        return TypeAdapter(kind).validate_json(data)
    except ValidationError:
        raise Conflict(
            f"the daemon sent an unknown response: {printable(data[:60].decode(errors='replace'))}",
            hint="restart the daemon, so that both have the same version",
        ) from None
