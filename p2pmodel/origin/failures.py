"""How asking a mirror can fail, inside this room: worth another try, or never again for this job."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import aiohttp

from p2pmodel.core.names import printable
from p2pmodel.errors import P2PModelError

_NOT_YET_VALID, _EXPIRED = 9, 10  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_KINDS: dict[tuple[type[Exception], ...], str] = {
    (FileNotFoundError,): "its certificate cannot be checked: SSL_CERT_FILE names no file",
    (ConnectionResetError, aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError): "connection lost",
}


@dataclass
class Failed(Exception):
    """The mirror may answer next time. `wait`: seconds it asked for. `slow`: a whole timeout was spent waiting."""

    reason: str
    wait: float | None = None
    slow: bool = False


@dataclass
class Refused(Exception):
    """The mirror is of no more use to this job. `error` is the kind of error this is if nobody else helps."""

    reason: str
    error: type[P2PModelError]
    got: str = ""
    """What came instead of the right bytes, for errors of integrity."""


class RangesIgnored(Exception):
    """The mirror answers a range with the whole file, which is fine if it is then asked for just that."""


def failure_of(error: BaseException) -> Failed:
    """The Failed that a library's network error stands for."""
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
    return next((text for link in chain if (text := _plain(link))), f"{type(error).__name__}")


def _certificate(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == _NOT_YET_VALID:
        return "certificate not yet valid: check the clock"
    if error.verify_code == _EXPIRED:
        return "certificate expired: check the clock, or renew it"
    return f"certificate not trusted ({printable(error.verify_message or 'verification failed', 80)})"


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
        return "it does not speak proper HTTP"
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
