"""Error responses of the JSON applications: `{"code", "message", "hint"}` with the HTTP status of the error tree."""

import re
from collections.abc import Callable, Mapping

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from p2pmodel.errors import P2PModelError, TooManyRequests
from p2pmodel.os_errors import translate


def error_response(error: P2PModelError) -> web.Response:
    """`error` as a response."""
    headers = {"WWW-Authenticate": "Bearer"} if error.http_status == 401 else {}
    if isinstance(error, TooManyRequests):
        headers["Retry-After"] = str(error.retry_after)
    plain = {"code": error.code, "message": error.what, "hint": error.hint}
    return web.json_response(plain, status=error.http_status, headers=headers)


def http_error_response(error: web.HTTPError) -> web.Response:
    """An error of aiohttp itself (no such path, no such method, a body too large) in the same JSON form."""
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
    return status_response(error.status, error.reason, headers)


def status_response(status: int, reason: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """A status that has no error class, in the same JSON form."""
    code = re.sub(r"\W+", "_", reason.lower())
    body = {"code": code, "message": f"{reason} ({status})", "hint": ""}
    return web.json_response(body, status=status, headers=headers)


@web.middleware
async def json_http_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer errors of aiohttp itself with `http_error_response`."""
    try:
        return await handler(request)
    except web.HTTPError as error:
        return http_error_response(error)


def error_middleware(respond: Callable[[P2PModelError], web.Response]) -> Middleware:
    """A middleware that answers every exception of a handler with `respond`, translated into the error tree.

    Errors of aiohttp itself pass through, and all exceptions once a response has begun or the client is gone.
    """

    @web.middleware
    async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException:
            raise
        except Exception as error:  # the outermost handler of a request: every failure gets a response
            if not _can_respond(request):
                raise
            return respond(translate(error))

    return answer_errors


def _can_respond(request: web.Request) -> bool:
    return request.writer.output_size == 0 and request.transport is not None and not request.transport.is_closing()
