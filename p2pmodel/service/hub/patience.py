"""Short parts of files that are on their way: who asks for one is let wait.

Such a client reads the header of a weight file, say, and gives up when it is told to ask again; one that wants all of
the file asks again.
"""

import asyncio

from aiohttp import web
from aiohttp.typedefs import Handler

from p2pmodel.errors import NotYet
from p2pmodel.http.ranges import RangeNotSatisfiable, parse_range

SHORT = 1 << 20
"""Bytes."""

_LOOK_EVERY = 0.2
_ANY_SIZE = 1 << 62


async def patiently(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The answer, for a short part as soon as there is one and for as long as the client is there."""
    while True:
        try:
            return await handler(request)
        except NotYet:
            if not _short(request) or request.transport is None or request.transport.is_closing():
                raise
        await asyncio.sleep(_LOOK_EVERY)


def _short(request: web.Request) -> bool:
    try:
        part = parse_range(request.headers.get("Range"), _ANY_SIZE)
    except RangeNotSatisfiable:
        return False
    return request.method == "GET" and part is not None and part.length <= SHORT
