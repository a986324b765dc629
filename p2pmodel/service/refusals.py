"""Errors as our JSON applications answer them: `{"code", "message", "hint"}` with the status of the error tree."""

import re

from aiohttp import web
from aiohttp.typedefs import Handler

from p2pmodel.errors import P2PModelError


def refusal(error: P2PModelError) -> web.Response:
    """`error` as an answer."""
    headers = {"WWW-Authenticate": "Bearer"} if error.http_status == 401 else None
    plain = {"code": error.code, "message": error.what, "hint": error.hint}
    return web.json_response(plain, status=error.http_status, headers=headers)


@web.middleware
async def json_refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What aiohttp refuses by itself (no such path, no such method, a body too large) in the same JSON shape."""
    try:
        return await handler(request)
    except web.HTTPError as error:
        code = re.sub(r"\W+", "_", error.reason.lower())
        body = {"code": code, "message": f"{error.reason} ({error.status})", "hint": ""}
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return web.json_response(body, status=error.status, headers=headers)
