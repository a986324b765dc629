"""How a request to a mirror fails, inside this room: transient (`Failed`), or final for the job (`Refused`).

The body of a response is read here, too: it may fail at any block.
"""

import asyncio
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import aiohttp
from aiohttp.http import HttpProcessingError

from p2pmodel.core.content.names import printable
from p2pmodel.errors import (
    BY_STATUS,
    EntryNotFound,
    GatedRepo,
    P2PModelError,
    RepoNotFound,
    RevisionNotFound,
    Unavailable,
)
from p2pmodel.http_pool import ForbiddenAddress
from p2pmodel.origin.headers import retry_after

UNTRUSTED = "certificate not trusted"
"""Begin of the reason for a certificate of an unknown authority, or of another host."""
_NOT_YET_VALID, _EXPIRED = 9, 10  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_KINDS: dict[tuple[type[Exception], ...], str] = {
    (FileNotFoundError,): "its certificate cannot be checked: SSL_CERT_FILE names no file",
    (ConnectionResetError, aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError): "connection lost",
}

NETWORK_ERRORS = (aiohttp.ClientError, HttpProcessingError, TimeoutError, OSError, ValueError)
"""What aiohttp raises for a request that fails on the way."""
_RETRYABLE = frozenset({408, 409, 421, 423, 425, 429})
_NOT_IMPLEMENTED = 501
PROXY_LOGIN = 407
_PROXY_LOGIN = ": it requires a user name and a password"

_BY_CODE: dict[str, type[P2PModelError]] = {
    "GatedRepo": GatedRepo,
    "RepoNotFound": RepoNotFound,
    "RevisionNotFound": RevisionNotFound,
    "EntryNotFound": EntryNotFound,
}
"""By the hub's X-Error-Code, which is more precise than the status."""


@dataclass
class Failed(Exception):
    """The next request may succeed. `wait`: seconds the mirror asked for. `slow`: a whole timeout passed. `status`: of
    the HTTP response, None if there was none."""

    reason: str
    wait: float | None = None
    slow: bool = False
    status: int | None = None


@dataclass
class Refused(Exception):
    """The mirror is of no more use to this job. `error`: what the job raises if no other mirror helps."""

    reason: str
    error: type[P2PModelError]
    got: str = ""
    """A description of the bytes that came instead of the right ones, for integrity errors."""


class RangesIgnored(Exception):
    """The mirror answered a range with the whole file: usable for requests of the whole file only."""


def forbidden_in(error: BaseException) -> Refused | None:
    """The failure that stands for `error`, if it is about an address that is not admitted."""
    return next((forbidden(str(link.strerror)) for link in _chain(error) if isinstance(link, ForbiddenAddress)), None)


def forbidden(refusal: str) -> Refused:
    """The failure of a URL that leads to an address that its rule does not admit."""
    return Refused(f"it leads to {refusal} (see the setting origin.allowed_networks)", Unavailable)


@contextmanager
def naming(proxy: str) -> Iterator[None]:
    """Name the `proxy` ("": none) in the failures of the block: an answer may be its own."""
    try:
        yield
    except (Failed, Refused) as failure:
        begin = f"by proxy {proxy}: "
        if proxy and not failure.reason.startswith(begin):
            failure.reason = begin + failure.reason
        raise


def retryable(status: int) -> bool:
    """Whether the same request may succeed later. 501 is final: the server has no such function."""
    return status in _RETRYABLE or (status >= 500 and status != _NOT_IMPLEMENTED)


def status_failure(status: int, headers: Mapping[str, str], now: datetime) -> Failed | Refused:
    """The meaning of an HTTP status other than success, with the hub's X-Error-Code and Retry-After."""
    if status == PROXY_LOGIN:
        return Refused(f"HTTP {status}{_PROXY_LOGIN}", Unavailable)
    if retryable(status):
        return Failed(f"HTTP {status}", wait=retry_after(headers, now), status=status)
    code = headers.get("X-Error-Code", "")
    if code in _BY_CODE:
        return Refused(f"HTTP {status} ({code})", _BY_CODE[code])
    return Refused(f"HTTP {status}", BY_STATUS.get(status, Unavailable))


def refused_by_proxy(error: BaseException) -> Refused | None:
    """The failure that stands for `error`, if a proxy will never open the connection."""
    final = isinstance(error, aiohttp.ClientHttpProxyError) and not retryable(error.status)
    return Refused(reason_of(error), Unavailable) if final else None


def failure_of(error: BaseException) -> Failed:
    """The Failed that stands for a library's network error."""
    slow = isinstance(error, TimeoutError) or "Timeout" in type(error).__name__
    return Failed(reason_of(error), slow=slow or isinstance(error, aiohttp.ClientConnectorDNSError))


def reason_of(error: BaseException) -> str:
    """A network error of aiohttp, httpx or the standard library in a few words, without addresses or secrets."""
    # aiohttp's certificate error is an SSLCertVerificationError in name only; the one with the code is inside it.
    chain = [link for link in _chain(error) if not isinstance(link, aiohttp.ClientConnectorCertificateError)]
    for link in chain:
        if isinstance(link, ssl.SSLCertVerificationError):
            return _certificate(link)
        # aiohttp's ClientConnectorSSLError is an SSLError without a reason.
        if isinstance(link, ssl.SSLError):
            return f"TLS failed ({printable(getattr(link, 'reason', None) or 'handshake', 60)})"
        if isinstance(link, socket.gaierror):
            return "its name does not resolve (DNS)"
        if isinstance(link, ConnectionRefusedError):
            return "connection refused"
        if isinstance(link, aiohttp.ClientHttpProxyError):
            return f"it refuses the connection (HTTP {link.status}){_PROXY_LOGIN if link.status == PROXY_LOGIN else ''}"
    return next((text for link in chain if (text := _plain(link))), f"{type(error).__name__}")


def _certificate(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == _NOT_YET_VALID:
        return "certificate not yet valid: check the clock"
    if error.verify_code == _EXPIRED:
        return "certificate expired: check the clock, or renew it"
    return f"{UNTRUSTED} ({printable(error.verify_message or 'verification failed', 80)})"


def _plain(error: BaseException) -> str:
    name = type(error).__name__
    if name in ("ConnectTimeout", "ConnectionTimeoutError"):
        return "timed out connecting"
    if isinstance(error, TimeoutError | asyncio.TimeoutError) or "Timeout" in name:
        return "timed out waiting for an answer"
    for kinds, text in _KINDS.items():
        if isinstance(error, kinds):
            return text
    if "ProtocolError" in name or isinstance(error, aiohttp.ClientResponseError):
        return "invalid HTTP response"
    if isinstance(error, OSError) and error.errno and error.strerror:
        return error.strerror.lower()
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        inner = getattr(error, "os_error", None) or getattr(error, "certificate_error", None)
        error = inner if isinstance(inner, BaseException) else error.__cause__ or error.__context__


async def next_block(response: aiohttp.ClientResponse, most: int) -> tuple[bytes, Failed | None]:
    """The bytes in the buffer, at most `most`; empty at the end of the body or after a failure."""
    try:
        return await response.content.read(most), None
    except NETWORK_ERRORS as error:
        return b"", failure_of(error)
