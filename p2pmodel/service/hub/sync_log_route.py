"""GET /sync-log: the files that this mirror synced, with time, sources and sha256, for every client of the mirror."""

import asyncio
import os
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from aiohttp import web

from p2pmodel.os_errors import translated
from p2pmodel.store.files.regular import open_regular

_CHUNK = 256 << 10


def sync_log_route(path: Path) -> web.RouteDef:
    """The route that serves the log at `path` as it is now. `?from=BYTE` skips the bytes before."""

    async def sync_log(request: web.Request) -> web.StreamResponse:
        start = request.query.get("from", "0")
        if not (start.isascii() and start.isdigit() and len(start) < 19):
            raise web.HTTPBadRequest(reason="from must be a number of bytes")
        # Before the first sync the log is empty.
        with await asyncio.to_thread(_open, path) as log:
            size = await asyncio.to_thread(log.seek, 0, 2)
            offset = min(int(start), size)
            response = web.StreamResponse(headers={"Cache-Control": "no-cache"})
            response.content_type = "application/jsonl"
            response.content_length = size - offset
            await response.prepare(request)
            await asyncio.to_thread(log.seek, offset)
            while request.method == "GET" and offset < size:
                data = await asyncio.to_thread(log.read, min(_CHUNK, size - offset))
                await response.write(data)
                offset += len(data)
            return response

    return web.get("/sync-log", sync_log)


@translated()
def _open(path: Path) -> BinaryIO:
    try:
        return os.fdopen(open_regular(path), "rb")
    except FileNotFoundError:
        return BytesIO()
