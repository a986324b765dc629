"""The access log: one JSON object a line for each request."""

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from p2pmodel.core.files.private_files import append_private

LOOK_EVERY = 1.0
"""Seconds between two looks whether log rotation has moved the file."""

SENT = web.RequestKey("SENT", int)
"""Key of a request for the body bytes sent so far, set by handlers that write the body themselves."""


class AccessLog:
    """Appends to `path`; each line is written whole and at once, so the file can be read while the server runs.
    After log rotation it continues in a new file.

    A new file has mode 0600: the lines name clients and what they read.

    Keys: time (UTC, ISO 8601), method, path (decoded), target (path and query as on the wire), status (0 if the
    connection ended before a response), bytes (body bytes sent), range (the Range header), client,
    user_agent, seconds.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._file: TextIO = append_private(path)
        self._clock = clock
        self._look_at = 0.0

    def close(self) -> None:
        """Close the file; do not log afterwards."""
        self._file.close()

    def middleware(self) -> Middleware:
        """The logging middleware. It must be the outermost one, because it writes the response itself."""

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
        # In the event loop on purpose: writing a line to the page cache takes less time than a switch to a thread.
        # A full disk loses lines, not requests; the rest of the buffer is written with the next line.
        with suppress(OSError):
            self._follow_rotation()
            self._file.write(json.dumps(record, separators=(",", ":")) + "\n")

    def _follow_rotation(self) -> None:
        """Continue in a new file if the one before was moved away or removed."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_EVERY
        with suppress(FileNotFoundError):
            if self._path.stat().st_ino == os.fstat(self._file.fileno()).st_ino:
                return
        file = append_private(self._path)
        self._file.close()
        self._file = file


async def _write_out(request: web.Request, response: web.StreamResponse) -> None:
    """Send the response here instead of in aiohttp after the handler, so that a failure to send it is logged."""
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
