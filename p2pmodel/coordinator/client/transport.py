"""HTTP requests to coordinators: bounded answers, and the errors that refusals stand for."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import aiohttp
from aiohttp.http import HttpProcessingError

from p2pmodel import http_pool
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.tokens import MEMBER_SETTING, PUBLISH_SETTING
from p2pmodel.core.content.names import printable
from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import AccessDenied, P2PModelError, Unavailable, restored
from p2pmodel.http_pool import HttpPool, read_bounded
from p2pmodel.origin.failures import UNTRUSTED, reason_of

NETWORK_ERRORS = (aiohttp.ClientError, HttpProcessingError, TimeoutError, OSError, ValueError)
CA_SETTING = "coordinator_ca_file"
IDENTITY = {"Accept-Encoding": "identity"}
JSON_BODY = MappingProxyType({"Content-Type": "application/json"})
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_MAX_MESSAGE = 64 << 10


def session(timeout: float, http: HttpPool | None = None) -> aiohttp.ClientSession:
    """A session of which each request ends within `timeout` seconds, on the connections of `http` if given."""
    return http_pool.session(http, timeout=aiohttp.ClientTimeout(total=timeout), headers=IDENTITY)


async def refusal(response: aiohttp.ClientResponse, *, publishing: bool = False) -> P2PModelError:
    """The error that a refusal stands for: `{"code", "message", "hint"}`, or its status alone.

    `publishing`: the request needed the token of a publisher.
    """
    body = await read_bounded(response, _MAX_MESSAGE)
    plain = _object(body) if body is not None and response.content_type == "application/json" else {}
    message = _text(plain, "message") or f"it answered {response.status} without saying why"
    error = restored(_text(plain, "code"), message, hint=_text(plain, "hint"), status=response.status)
    if isinstance(error, AccessDenied):
        error.hint = f"check {PUBLISH_SETTING if publishing else MEMBER_SETTING}"
    return error


async def call(
    coordinator: Coordinator,
    method: str,
    path: str,
    *,
    timeout: float,
    http: HttpPool | None = None,
    query: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    body: bytes | None = None,
    headers: Mapping[str, str] = NO_HEADERS,
    publishing: bool = False,
    limit: int = _MAX_MESSAGE,
) -> bytes | None:
    """Send one request, with this user's tokens, and return the body of the answer; None if it exceeds `limit` bytes.

    Raises the error of a refusal, and Unavailable without an answer. `headers` come beside the tokens; `publishing`:
    the request needs the token of a publisher.
    """
    tokens = coordinator.publishing_headers if publishing else coordinator.headers
    try:
        async with (
            session(timeout, http) as connections,
            connections.request(
                method,
                f"{coordinator.url}{path}",
                params=query,
                data=None if body is None else io.BytesIO(body),
                headers={**headers, **tokens},
                ssl=coordinator.tls,
                allow_redirects=False,
            ) as response,
        ):
            if response.status >= 300:
                raise refused(coordinator, await refusal(response, publishing=publishing))
            return await read_bounded(response, limit)
    except NETWORK_ERRORS as error:
        raise unreachable(coordinator, error) from None


def refused(coordinator: Coordinator, error: P2PModelError) -> P2PModelError:
    """`error`, with the coordinator's name in its message."""
    return restored(error.code, f"coordinator {coordinator}: {error.what}", hint=error.hint)


def unreachable(coordinator: Coordinator, error: BaseException) -> Unavailable:
    """The error for a coordinator that a request did not reach."""
    return Unavailable(f"coordinator {coordinator} cannot be reached: {reason(error)}")


def reason(error: BaseException) -> str:
    """One of `NETWORK_ERRORS` in a few words."""
    if isinstance(error, aiohttp.InvalidURL):
        return "its URL is malformed"
    why = reason_of(error)
    return f"{why}: name its authority in {CA_SETTING}" if why.startswith(UNTRUSTED) else why


def _object(body: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        plain = parse_json(body)
        if isinstance(plain, dict):
            return plain
    return {}


def _text(plain: dict[str, Any], key: str) -> str:
    value = plain.get(key)
    return printable(value, 300) if isinstance(value, str) else ""
