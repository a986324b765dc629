"""Requests for short ranges of files that are being downloaded: the client waits instead of getting "try again".

Such a client reads the header of a weight file, for example, and gives up after "try again". A client that wants the
whole file tries again.
"""

import asyncio

from aiohttp import web
from aiohttp.typedefs import Handler

from p2pmodel.errors import NotYet
from p2pmodel.http.ranges import RangeNotSatisfiable, parse_range

SHORT = 1 << 20
"""Longest range, in bytes, for which a client waits."""

_POLL = 0.2
_ANY_SIZE = 1 << 62


async def with_patience(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The answer of `handler`; for a short range, repeat until it is ready or the client is gone."""
    while True:
        try:
            return await handler(request)
        except NotYet:
            if not _short(request) or request.transport is None or request.transport.is_closing():
                raise
        await asyncio.sleep(_POLL)


def _short(request: web.Request) -> bool:
    try:
        part = parse_range(request.headers.get("Range"), _ANY_SIZE)
    except RangeNotSatisfiable:
        return False
    return request.method == "GET" and part is not None and part.length <= SHORT
