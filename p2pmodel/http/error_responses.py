"""Error responses of the JSON applications: `{"code", "message", "hint"}` with the HTTP status of the error tree.

Failures of the server itself name its paths. Over TCP the response has a general text, and the log has the details.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from cachetools import TTLCache

from p2pmodel.core.notes import error as error_note
from p2pmodel.errors import LocalResource, NoSpace, P2PModelError, TooManyRequests
from p2pmodel.os_errors import translate

_LOG_EVERY = 60.0
"""Seconds for which the same failure is not logged again."""
_REASONS = {
    413: "Request Entity Too Large",
    414: "Request-URI Too Long",
    416: "Requested Range Not Satisfiable",
    422: "Unprocessable Entity",
}
"""Reasons that are others since Python 3.13: clients compare the codes that are made of them."""
_SEE_LOG = "the log of the server has the details"


@dataclass(frozen=True, slots=True)
class FailureLog:
    """Writes the failures of a server to its log, each text once in `_LOG_EVERY` seconds."""

    note: Callable[[str], None]
    _logged: TTLCache[str, None] = field(default_factory=lambda: TTLCache(256, _LOG_EVERY))

    def add(self, error: P2PModelError) -> None:
        """Log `error`."""
        text = str(error)
        if text not in self._logged:
            self._logged[text] = None
            self.note(error_note("request_failed", text, code=error.code))


FAILURES = web.AppKey("FAILURES", FailureLog)
"""Key of an application for the log of its failures."""


def outward(request: web.Request, error: P2PModelError) -> P2PModelError:
    """`error` as the client of `request` may see it. Failures of this machine are logged, and named in general terms.

    Clients on a unix socket belong to the user of this process, and see all.
    """
    own = request.transport is not None and not isinstance(request.transport.get_extra_info("peername"), tuple)
    if own or not (isinstance(error, LocalResource) or type(error) is P2PModelError):
        return error
    log = request.config_dict.get(FAILURES)
    if log is not None:
        log.add(error)
    if isinstance(error, NoSpace):
        return NoSpace("no space left on a disk of the server", hint=_SEE_LOG)
    if isinstance(error, LocalResource):
        return LocalResource("the server cannot use one of its files or devices", hint=_SEE_LOG)
    return P2PModelError("internal error", hint=_SEE_LOG)


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
    return status_response(error.status, _REASONS.get(error.status, error.reason), headers)


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
            return respond(outward(request, translate(error)))

    return answer_errors


def _can_respond(request: web.Request) -> bool:
    return request.writer.output_size == 0 and request.transport is not None and not request.transport.is_closing()
