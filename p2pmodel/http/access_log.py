"""The access log: one JSON object a line for each request served."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

SENT = web.RequestKey("SENT", int)
"""Where a handler that writes its own body keeps the number of body bytes sent so far."""


class AccessLog:
    """Appends to `path`; each line is written whole and at once, so that it can be read while the server runs.

    Keys: time (UTC, ISO 8601), method, path (decoded), target (path and query as on the wire), status (0 if the
    connection ended before an answer), bytes (body bytes really sent), range (the Range header), client,
    user_agent, seconds.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._file: TextIO = path.open("a", encoding="utf-8", buffering=1)
        self._clock = clock

    def close(self) -> None:
        """Close the file; nothing may be logged afterwards."""
        self._file.close()

    def middleware(self) -> Middleware:
        """The middleware that logs; it must be the outermost, because it writes the response out itself."""

        @web.middleware
        async def log(request: web.Request, handler: Handler) -> web.StreamResponse:
            started = time.monotonic()
            now = self._clock()
            response: web.StreamResponse | None = None
            try:
                response = await handler(request)
                await _write_out(request, response)
            except ConnectionError:
                if response is None:
                    raise
            except web.HTTPException as error:
                response = error
                raise
            finally:
                self._append(_record(request, response, now, time.monotonic() - started))
            return response

        return log

    def _append(self, record: dict[str, Any]) -> None:
        # On the event loop on purpose: one line into the page cache takes less than a hop to a thread.
        # A full disk loses lines, not requests; what is still in the buffer is written with the next one.
        with suppress(OSError):
            self._file.write(json.dumps(record, separators=(",", ":")) + "\n")


async def _write_out(request: web.Request, response: web.StreamResponse) -> None:
    """Send what aiohttp would send after the handler, so that it is known here whether it went out."""
    await response.prepare(request)
    await response.write_eof()
    if isinstance(response, web.Response) and isinstance(response.body, bytes) and request.method != "HEAD":
        request[SENT] = len(response.body)


def _record(request: web.Request, response: web.StreamResponse | None, now: float, seconds: float) -> dict[str, Any]:
    return {
        "time": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds"),
        "method": request.method,
        "path": request.path,
        "target": request.raw_path,
        "status": response.status if response is not None else 0,
        "bytes": request.get(SENT, 0),
        "range": request.headers.get("Range"),
        "client": request.remote,
        "user_agent": request.headers.get("User-Agent"),
        "seconds": round(seconds, 6),
    }
