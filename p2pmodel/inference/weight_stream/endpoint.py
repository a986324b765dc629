"""A blocking client of a hub endpoint: ranges of files that may still be growing there.

The endpoint sends bytes that a mirror sent before the hash of their file is known. It holds back the end of each file
until the hash is right, and ends the responses that began before, if it is wrong. A `FileGuard` is such a response for
the last byte, opened before anything else of the file is read: if it gets its byte, all that was read meanwhile is
right.
"""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import NoReturn
from urllib.parse import quote, urlsplit

from p2pmodel.core.content.names import DEFAULT_REVISION, printable
from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import AccessDenied, EntryNotFound, IntegrityError, NotFound, P2PModelError, Unavailable
from p2pmodel.inference.model_facts import MAX_JSON

PATIENCE = 600.0
"""Seconds without a byte after which a read fails."""
METADATA_PATIENCE = 60.0
"""Seconds for the size of a file, for which the daemon may have to ask mirrors and coordinators."""
PAUSE = 0.5
"""Seconds before a request is repeated."""
HEALTH_SECONDS = 5.0
_CHUNK = 4 << 20
_LATER = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_WRONG = "start the engine again: the daemon replaces what was wrong"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of the snapshot, and its size in bytes."""

    path: str
    size: int


class HubEndpoint:
    """Files of `repo` at `revision` through the endpoint at `url`. Used by several threads; `abort` ends all reads."""

    def __init__(
        self,
        url: str,
        repo: str,
        revision: str | None = None,
        *,
        token: str | None = None,
        patience: float = PATIENCE,
    ) -> None:
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host = parts.netloc
        self._prefix = parts.path.rstrip("/")
        self._repo = repo
        self.revision = revision or DEFAULT_REVISION
        """From the first response on the commit, so that a branch that moves does not mix two snapshots."""
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._patience = patience
        self._open: dict[HTTPConnection, socket.socket] = {}
        """The sockets on which a response is awaited: a connection may give its own up to the response."""
        self._lock = threading.Lock()
        self._aborted = threading.Event()

    def check(self) -> None:
        """Raise Unavailable unless something serves hub clients there."""
        try:
            with self._response("GET", f"{self._prefix}/healthz", {}, HEALTH_SECONDS) as response:
                healthy = response.status == HTTPStatus.OK and parse_json(response.read(1 << 16)) == {"status": "ok"}
        except (OSError, HTTPException, ValueError) as error:
            raise Unavailable(f"no daemon answers: {_reason(error)}") from None
        if not healthy:
            raise Unavailable("it is not the endpoint of a daemon")

    def file(self, path: str) -> RemoteFile:
        """The size of `path`. Raises EntryNotFound if the snapshot does not have it."""
        with self._answered("HEAD", path, {}, METADATA_PATIENCE) as response:
            if response.status != HTTPStatus.OK:
                self._fail(response, path)
            self.revision = response.headers.get("X-Repo-Commit", self.revision)
            length = response.headers.get("X-Linked-Size") or response.headers.get("Content-Length") or ""
        if not length.isdecimal():
            raise Unavailable(f"the endpoint states no size of {printable(path)}")
        return RemoteFile(path, int(length))

    def small(self, path: str) -> bytes:
        """All of `path`, such as an index. Raises EntryNotFound, and IntegrityError for one that is too long."""
        file = self.file(path)
        if file.size > MAX_JSON:
            raise IntegrityError(f"{printable(path)} has {file.size} bytes")
        data = bytearray(file.size)
        self.read(file, 0, memoryview(data))
        return bytes(data)

    def read(self, file: RemoteFile, start: int, into: memoryview) -> None:
        """Fill `into` with the bytes from `start` on, as they arrive. Raises Unavailable after `patience` seconds
        without a byte."""
        done, last = 0, time.monotonic()
        while done < len(into):
            before = done
            try:
                for count in self._received(file, start + done, into[done:]):
                    done += count
            except (OSError, HTTPException) as error:
                reason = _reason(error)
            else:
                reason = "the connection was cut"
            if done > before:
                last = time.monotonic()
            elif time.monotonic() - last > self._patience:
                raise _silent(file, self._patience, reason)
            if done < len(into):
                self._pause()

    def guard(self, file: RemoteFile) -> "FileGuard | None":
        """Open the guard of `file`. None if the endpoint sends only all of it at once, as it does for a day after
        wrong bytes: read it with `whole` then."""
        opened = self._opened(file, {"Range": f"bytes={file.size - 1}-"})
        if opened.response.status == HTTPStatus.PARTIAL_CONTENT:
            return FileGuard(opened)
        opened.close()
        return None

    def whole(self, file: RemoteFile) -> "WholeFile":
        """Open all of `file`, to be read from its start on."""
        return WholeFile(self._opened(file, {}))

    def abort(self) -> None:
        """End all reads and guards, also those that other threads wait for."""
        self._aborted.set()
        with self._lock:
            opened = list(self._open.values())
        for sock in opened:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _received(self, file: RemoteFile, start: int, into: memoryview) -> Iterator[int]:
        """The numbers of bytes received, each chunk's when it is there. Ends early if the endpoint asks to wait."""
        if not len(into):
            return
        asked = {"Range": f"bytes={start}-{start + len(into) - 1}"}
        with self._answered("GET", file.path, asked, self._patience) as response:
            if response.status == HTTPStatus.OK:
                self._skip(response, start)  # it sends only whole files for a while after wrong bytes
            elif response.status != HTTPStatus.PARTIAL_CONTENT:
                self._fail(response, file.path)
            done = 0
            while done < len(into):
                count = response.readinto(into[done : done + _CHUNK])
                if not count:
                    return
                done += count
                yield count

    def _skip(self, response: HTTPResponse, count: int) -> None:
        while count:
            data = response.read(min(count, _CHUNK))
            if not data:
                raise ConnectionError("the connection was cut")
            count -= len(data)

    def _opened(self, file: RemoteFile, headers: dict[str, str]) -> "_OpenResponse":
        """A response with bytes of `file`, once its header is there."""
        with ExitStack() as undo:
            connection = self._connection(self._patience)
            undo.callback(self._close, connection)
            try:
                response = self._begun(connection, file, headers)
            except (OSError, HTTPException) as error:
                text = f"{printable(file.path)}: {_reason(error)}"
                raise Unavailable(text, hint="see whether the daemon runs") from None
            return _OpenResponse(file, response, undo.pop_all().close)

    def _begun(self, connection: HTTPConnection, file: RemoteFile, headers: dict[str, str]) -> HTTPResponse:
        began = time.monotonic()
        while True:
            response = self._ask(connection, "GET", self._path(file.path), headers)
            if response.status in (HTTPStatus.PARTIAL_CONTENT, HTTPStatus.OK):
                return response
            reason = f"HTTP {response.status}"
            response.read()
            if response.status not in _LATER:
                self._fail(response, file.path)
            if time.monotonic() - began > self._patience:
                raise _silent(file, self._patience, reason)
            self._pause()

    @contextmanager
    def _answered(self, method: str, path: str, headers: dict[str, str], patience: float) -> Iterator[HTTPResponse]:
        """The response about a file, after those that ask to come again."""
        began = time.monotonic()
        while True:
            with self._response(method, self._path(path), headers, patience) as response:
                if response.status not in _LATER:
                    yield response
                    return
            if time.monotonic() - began > patience:
                raise _silent(RemoteFile(path, 0), patience, f"HTTP {response.status}")
            self._pause()

    @contextmanager
    def _response(self, method: str, path: str, headers: dict[str, str], timeout: float) -> Iterator[HTTPResponse]:
        connection = self._connection(timeout)
        try:
            yield self._ask(connection, method, path, headers)
        finally:
            self._close(connection)

    def _connection(self, timeout: float) -> HTTPConnection:
        return (
            HTTPSConnection(self._host, timeout=timeout, context=ssl.create_default_context())
            if self._secure
            else HTTPConnection(self._host, timeout=timeout)
        )

    def _ask(self, connection: HTTPConnection, method: str, path: str, headers: dict[str, str]) -> HTTPResponse:
        connection.request(method, path, headers={"Accept-Encoding": "identity", **self._headers, **headers})
        with self._lock:
            if self._aborted.is_set():
                raise Unavailable("the load was stopped")
            self._open[connection] = connection.sock
        return connection.getresponse()

    def _close(self, connection: HTTPConnection) -> None:
        with self._lock:
            self._open.pop(connection, None)
        connection.close()

    def _path(self, path: str) -> str:
        return f"{self._prefix}/{quote(self._repo)}/resolve/{quote(self.revision, safe='')}/{quote(path)}"

    def _pause(self) -> None:
        if self._aborted.wait(PAUSE):
            raise Unavailable("the load was stopped")

    def _fail(self, response: HTTPResponse, path: str) -> NoReturn:
        said = printable(response.headers.get("X-Error-Message") or f"HTTP {response.status}", limit=300)
        what = f"{self._repo}: {printable(path)}: {said}"
        if response.status in _REFUSED:
            raise AccessDenied(what, hint="give the endpoint's token as HF_TOKEN")
        if response.status != HTTPStatus.NOT_FOUND:
            raise Unavailable(what)
        raise (EntryNotFound if response.headers.get("X-Error-Code") == "EntryNotFound" else NotFound)(what)


@dataclass(frozen=True, slots=True)
class _OpenResponse:
    """An open response with bytes of `file`."""

    file: RemoteFile
    response: HTTPResponse
    disconnect: Callable[[], None]

    def close(self) -> None:
        """End the response."""
        self.response.close()
        self.disconnect()

    def fill(self, into: memoryview) -> None:
        """Fill `into` with the next bytes. Raises IntegrityError if the endpoint has ended the response before."""
        done = 0
        try:
            while done < len(into):
                count = self.response.readinto(into[done : done + _CHUNK])
                if not count:
                    raise ConnectionError("the response ended early")
                done += count
        except TimeoutError:
            raise Unavailable(f"{printable(self.file.path)} is not complete", hint="see 'p2pmodel why'") from None
        except (OSError, HTTPException) as error:
            path = printable(self.file.path)
            raise IntegrityError(
                f"{path} arrived damaged, or its transfer has ended: {_reason(error)}", hint=_WRONG
            ) from None


class FileGuard:
    """An open response for the last byte of a file, which comes when the hash of the whole file is right."""

    def __init__(self, opened: _OpenResponse) -> None:
        self._opened = opened

    def confirm(self) -> None:
        """Wait for the byte. Raises IntegrityError if the endpoint has ended the response without it."""
        self._opened.fill(memoryview(bytearray(1)))

    def close(self) -> None:
        """End the response."""
        self._opened.close()


class WholeFile:
    """An open response with all of a file. It ends early if its bytes were wrong, so its end confirms all of it."""

    def __init__(self, opened: _OpenResponse) -> None:
        self._opened = opened
        self._at = 0

    def read(self, start: int, into: memoryview) -> None:
        """Fill `into` with the bytes from `start` on, which must not be before those read last."""
        while self._at < start:
            skipped = bytearray(min(start - self._at, _CHUNK))
            self._fill(memoryview(skipped))
        self._fill(into)

    def close(self) -> None:
        """End the response."""
        self._opened.close()

    def _fill(self, into: memoryview) -> None:
        self._opened.fill(into)
        self._at += len(into)


def _silent(file: RemoteFile, seconds: float, reason: str) -> P2PModelError:
    return Unavailable(
        f"no byte of {printable(file.path)} within {seconds:.0f} s: {reason}", hint="see 'p2pmodel why' on that node"
    )


def _reason(error: Exception) -> str:
    return printable(getattr(error, "strerror", None) or str(error) or type(error).__name__, limit=200)
