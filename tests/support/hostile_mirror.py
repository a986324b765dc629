"""A mirror that answers with whatever may harm its clients, in a thread of the test."""

import json
import time
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Thread
from typing import Self

COMMIT = "0" * 40
MIB = 1 << 20


class HostileMirror:
    """`harm`: "gzip bomb", "endless body", "drip", "deep", "huge length" or "bad header" for each answer about a model;
    "itself" or "pages" for a listing that goes on with itself, or with new pages for ever; or the URL that it redirects
    every request to. `requests`: request lines with headers."""

    def __init__(self, harm: str, host: str = "127.0.0.9") -> None:
        self.harm = harm
        self.requests: list[str] = []
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                mirror.requests.append(f"{self.requestline}\n{self.headers}")
                try:
                    mirror._answer(self)
                except OSError:
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://{host}:{self._server.server_port}"
        self._pages = count()
        self._closed = False

    def __enter__(self) -> Self:
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closed = True
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, to: BaseHTTPRequestHandler) -> None:
        if "://" in self.harm or "/resolve/" in to.path:
            target = self.harm if "://" in self.harm else "http://169.254.169.254/latest/meta-data"
            return self._send(to, 302, b"", Location=target)
        match self.harm:
            case "gzip bomb":
                self._stream(to, _bomb(), {"Content-Encoding": "gzip"})
            case "endless body":
                self._stream(to, _repeated(b'["', b"a" * MIB), {})
            case "drip":
                self._stream(to, _drip(), {})
            case "deep":
                self._send(to, 200, b"[" * 100_000)
            case "huge length":
                self._raw(to, b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n")
            case "bad header":
                self._raw(
                    to, b"HTTP/1.1 200 \xff\xfe\r\nX-Repo-Commit: \xed\xa0\x80\r\nLink: <http://[::1>\x00\r\n\r\n{}"
                )
            case _:
                self._listing(to)
        return None

    def _listing(self, to: BaseHTTPRequestHandler) -> None:
        """The model, and a tree with a next page: itself, or another one without end."""
        if "/tree/" not in to.path:
            return self._send(to, 200, json.dumps({"sha": COMMIT, "siblings": []}).encode())
        page = next(self._pages)
        entry = {"type": "file", "path": f"{page}.bin" if self.harm == "pages" else "a.bin", "size": 1, "oid": COMMIT}
        onward = f"{to.path.partition('&')[0]}&cursor={page}" if self.harm == "pages" else to.path
        return self._send(to, 200, json.dumps([entry]).encode(), Link=f'<{self.url}{onward}>; rel="next"')

    @staticmethod
    def _send(to: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
        to.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            to.send_header(name, value)
        to.end_headers()
        to.wfile.write(body)

    @staticmethod
    def _raw(to: BaseHTTPRequestHandler, data: bytes) -> None:
        to.close_connection = True
        to.wfile.write(data)

    def _stream(self, to: BaseHTTPRequestHandler, blocks: Iterator[bytes], headers: dict[str, str]) -> None:
        to.close_connection = True
        to.send_response(200)
        for name, value in {"Content-Type": "application/json", "Connection": "close", **headers}.items():
            to.send_header(name, value)
        to.end_headers()
        for block in blocks:
            if self._closed:
                return
            to.wfile.write(block)


def _repeated(first: bytes, block: bytes) -> Iterator[bytes]:
    yield first
    while True:
        yield block


def _bomb() -> Iterator[bytes]:
    """A gzip stream without end, of 64 MiB of zeros in each block of 64 KiB."""
    compress = zlib.compressobj(9, wbits=31)
    head = compress.compress(bytes(MIB)) + compress.flush(zlib.Z_FULL_FLUSH)
    block = compress.compress(bytes(MIB)) + compress.flush(zlib.Z_FULL_FLUSH)
    return _repeated(head, block * 64)


def _drip() -> Iterator[bytes]:
    while True:
        yield b" "
        time.sleep(0.05)
