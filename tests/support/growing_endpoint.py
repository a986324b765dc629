"""A hub endpoint with files that grow as a test says: blocks in any order, a late end, wrong bytes, cut answers."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

from tests.support.eventually import PATIENCE

BLOCK = 1024
COMMIT = "c" * 40
REPO = "org/model"


class GrowingEndpoint:
    """The files of REPO; nothing of them has arrived at first. A context serves them."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.arrived: dict[str, set[int]] = {path: set() for path in files}
        self.verified: set[str] = set()
        self.generation: dict[str, int] = dict.fromkeys(files, 0)
        self.whole: set[str] = set()
        """Files that are sent only from their start to their end."""
        self.later = 0
        """Number of the next requests that are answered "come again"."""
        self.cuts = 0
        """Number of the next responses that end after half of their bytes."""
        self.redirects = False
        self.requests: list[tuple[str, str, str]] = []
        """Method, path and range of each request."""
        self.changed = threading.Condition()
        self.closed = False
        self.url = ""

    def arrive(self, path: str, block: int) -> None:
        with self.changed:
            self.arrived[path].add(block)
            self.changed.notify_all()

    def verify(self, path: str) -> None:
        with self.changed:
            self.arrived[path] = set(range(self.blocks(path)))
            self.verified.add(path)
            self.changed.notify_all()

    def spoil(self, path: str) -> None:
        """End the responses of `path` that have begun: its bytes were wrong."""
        with self.changed:
            self.generation[path] += 1
            self.changed.notify_all()

    def complete(self) -> None:
        for path in self.files:
            self.verify(path)

    def blocks(self, path: str) -> int:
        return -(-len(self.files[path]) // BLOCK)

    def readable(self, path: str, offset: int, generation: int) -> int:
        """Wait for the byte at `offset`; the end of what may be read from there. 0 after wrong bytes."""
        size = len(self.files[path])

        def end() -> int:
            if self.generation[path] != generation or self.closed:
                return -1
            if offset == size - 1:
                return size if path in self.verified else 0
            return min(size - 1, (offset // BLOCK + 1) * BLOCK) if offset // BLOCK in self.arrived[path] else 0

        with self.changed:
            self.changed.wait_for(end, PATIENCE)
            return max(0, end())

    def take(self, counter: str) -> bool:
        """Whether one of the faults of this kind is left; it is taken."""
        with self.changed:
            left = getattr(self, counter)
            setattr(self, counter, max(0, left - 1))
            return bool(left)

    @contextmanager
    def serving(self) -> Iterator["GrowingEndpoint"]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: _Handler(self, *a))
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            with self.changed:
                self.closed = True
                self.changed.notify_all()
            server.shutdown()
            thread.join()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, endpoint: GrowingEndpoint, *arguments: object) -> None:
        self.endpoint = endpoint
        super().__init__(*arguments)  # type: ignore[arg-type]

    def log_message(self, *_: object) -> None:
        """Nothing: the test reads `requests`."""

    def do_HEAD(self) -> None:
        self._file(body=False)

    def do_GET(self) -> None:
        if self.path == "/healthz":
            self._answer(200, json.dumps({"status": "ok"}).encode())
            return
        self._file(body=True)

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self, *, body: bool) -> None:
        endpoint = self.endpoint
        _, _, rest = self.path.partition("/resolve/")
        path = unquote(rest.partition("/")[2])
        self.generation = endpoint.generation.get(path, 0)
        endpoint.requests.append((self.command, unquote(self.path), self.headers.get("Range", "")))
        if endpoint.redirects:
            self._answer(302, Location="https://elsewhere.test/")
            return
        if path not in endpoint.files:
            self._answer(404, X_Error_Code="EntryNotFound", X_Error_Message=f"no file {path}")
            return
        if body and endpoint.take("later"):
            self._answer(429)
            return
        size = len(endpoint.files[path])
        start, end, asked = 0, size, self.headers.get("Range", "").removeprefix("bytes=")
        ranged = bool(asked) and path not in endpoint.whole
        if ranged:
            first, _, last = asked.partition("-")
            start, end = int(first), int(last) + 1 if last else size
        self.send_response(206 if ranged else 200)
        for name, value in (("X-Repo-Commit", COMMIT), ("X-Linked-Size", size), ("Content-Length", end - start)):
            self.send_header(name, str(value))
        self.end_headers()
        if body:
            self._send(path, start, end)

    def _send(self, path: str, start: int, end: int) -> None:
        if end - start > 1 and self.endpoint.take("cuts"):
            end = start + (end - start) // 2
            self.close_connection = True
        self.wfile.flush()
        while start < end:
            until = min(end, self.endpoint.readable(path, start, self.generation))
            if until <= start:
                break
            try:
                self.wfile.write(self.endpoint.files[path][start:until])
            except OSError:
                break
            start = until
        if start < end:
            self.close_connection = True
