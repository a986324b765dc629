"""Errors as our JSON applications answer them: `{"code", "message", "hint"}` with the status of the error tree."""

import re
from collections.abc import Mapping

from aiohttp import web
from aiohttp.typedefs import Handler

from p2pmodel.errors import P2PModelError, TooManyRequests


def refusal(error: P2PModelError) -> web.Response:
    """`error` as an answer."""
    headers = {"WWW-Authenticate": "Bearer"} if error.http_status == 401 else {}
    if isinstance(error, TooManyRequests):
        headers["Retry-After"] = str(error.retry_after)
    plain = {"code": error.code, "message": error.what, "hint": error.hint}
    return web.json_response(plain, status=error.http_status, headers=headers)


@web.middleware
async def json_refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What aiohttp refuses by itself (no such path, no such method, a body too large) in the same JSON shape."""
    try:
        return await handler(request)
    except web.HTTPError as error:
        return refused(error)


def answerable(request: web.Request) -> bool:
    """Whether an answer can still be given: the client is there, and no other answer has begun."""
    return request.writer.output_size == 0 and request.transport is not None and not request.transport.is_closing()


def refused(error: web.HTTPError) -> web.Response:
    """What aiohttp refuses, as an answer."""
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
    return plain_refusal(error.status, error.reason, headers)


def plain_refusal(status: int, reason: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer for what has no error of ours."""
    code = re.sub(r"\W+", "_", reason.lower())
    body = {"code": code, "message": f"{reason} ({status})", "hint": ""}
    return web.json_response(body, status=status, headers=headers)
