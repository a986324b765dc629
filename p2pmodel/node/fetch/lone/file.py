"""One file from seeders over HTTP, in a thread: received, hashed and written in one pass.

Invariants, to re-check when editing:
1. Bytes are written in order, from `received` on, and counted in `received` after that.
2. Only the hub's hash of the whole file judges the bytes. Until it is right they are staged bytes of unknown worth,
   like those of a killed run: they are compared with the torrent before they are used.
3. Every wait ends: a connection or a read by `SILENCE`, all of it by `stop`, from any thread.
"""

import http.client
import os
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from p2pmodel.core.content.layout import KIB
from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.os_errors import naming, translated
from p2pmodel.store.files.disk import write_all
from p2pmodel.store.files.folder import open_regular
from p2pmodel.store.files.hashing import chunks

SILENCE = 3.0
"""Seconds without a byte, or a connection, after which a seeder has failed."""
SMALLEST_READ, LARGEST_READ = 16 * KIB, 256 * KIB
"""Bytes that are received, hashed and written at a time: few on a slow link, so that they are counted soon."""
READ_WITHIN = 0.02
"""Seconds that a read may take for the next one to be larger."""
_FAILURES = (OSError, http.client.HTTPException, ValueError)
"""Of a seeder. ValueError: a host name that cannot be resolved."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """A seeder: its `name`, its URL and the token that it asks for. `tls`: the context of an https URL; `host`: the
    name that its certificate must have, if not that in the URL."""

    name: str
    url: str
    token: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None
    host: str = ""


class LoneFile:
    """Downloads `file`, number `index` of its manifest, into `path`, which has its first `offset` bytes. `place` is its
    path below the URL of a seeder."""

    def __init__(self, index: int, file: ManifestFile, path: Path, offset: int, place: str) -> None:
        self.index = index
        self.file = file
        self.path = path
        self.received = offset
        """Bytes from the beginning of the file that are written."""
        self.source = ""
        """The name of the seeder that was asked last."""
        self.asks = False
        """Whether a seeder is asked now."""
        self._place = place
        self._socket: socket.socket | None = None
        self._stopped = False

    def run(self, sources: Sequence[FileSource]) -> bool:
        """Download the rest from `sources`: one after another as each fails. Blocks.

        Returns whether the file is whole and has the hub's hash. Raises LocalResource or NoSpace.
        """
        with translated():
            descriptor = open_regular(self.path, os.O_RDWR | os.O_CREAT)
        hasher = self.file.hasher()
        try:
            with translated():
                for data in chunks(descriptor, 0, self.received):
                    hasher.update(data)
                    if self._stopped:
                        return False
            for source in sources:
                if self._stopped or self.received == self.file.size:
                    break
                with suppress(*_FAILURES):
                    self._pull(source, descriptor, hasher.update)
        finally:
            os.close(descriptor)
        return self.received == self.file.size and hasher.hexdigest() == self.file.etag

    def stop(self) -> None:
        """End `run` soon."""
        self._stopped = True
        self.disconnect()

    def disconnect(self) -> None:
        """Leave the seeder that is asked now for the next one."""
        connected = self._socket
        if connected is not None:
            with suppress(OSError):
                socket.socket.shutdown(connected, socket.SHUT_RDWR)  # SSLSocket's own lets reads go on without TLS

    def _pull(self, source: FileSource, descriptor: int, update: Callable[[memoryview], None]) -> None:
        """Raises OSError or HTTPException when the seeder fails."""
        parts = urlsplit(source.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=SILENCE)
        self.source, self.asks = source.name, True
        try:
            connection.sock = self._socket = self._connected(source, parts.hostname or "", parts.port)
            if self._stopped:  # before there was a socket to shut down
                return
            connection.request("GET", parts.path.rstrip("/") + self._place, headers=self._headers(source))
            with connection.getresponse() as response:
                self._check(response)
                self._receive(response, descriptor, update)
        finally:
            self._socket, self.asks = None, False
            connection.close()

    def _connected(self, source: FileSource, host: str, port: int | None) -> socket.socket:
        if source.tls is None:
            return socket.create_connection((host, port or http.client.HTTP_PORT), timeout=SILENCE)
        plain = socket.create_connection((host, port or http.client.HTTPS_PORT), timeout=SILENCE)
        try:
            return source.tls.wrap_socket(plain, server_hostname=source.host or host)
        finally:
            plain.close()  # wrapped, its descriptor belongs to the other one

    def _headers(self, source: FileSource) -> dict[str, str]:
        headers = {"Range": f"bytes={self.received}-", "Accept-Encoding": "identity"}
        return headers | ({"Authorization": f"Bearer {source.token}"} if source.token else {})

    def _check(self, response: http.client.HTTPResponse) -> None:
        """Raise HTTPException unless the response is the rest of the file, and nothing else."""
        size = self.file.size
        expected = f"bytes {self.received}-{size - 1}/{size}"
        partial = response.status == http.client.PARTIAL_CONTENT and response.headers["Content-Range"] == expected
        whole = response.status == http.client.OK and not self.received
        if not (partial or whole) or response.length != size - self.received or response.headers["Content-Encoding"]:
            raise http.client.HTTPException(f"status {response.status}")

    def _receive(
        self, response: http.client.HTTPResponse, descriptor: int, update: Callable[[memoryview], None]
    ) -> None:
        buffer, most = memoryview(bytearray(LARGEST_READ)), SMALLEST_READ
        began = time.monotonic()
        while not self._stopped and (count := response.readinto(buffer[: min(most, self.file.size - self.received)])):
            ended = time.monotonic()
            most = min(2 * most, LARGEST_READ) if ended - began < READ_WITHIN else SMALLEST_READ
            data = buffer[:count]
            update(data)
            with translated(), naming(self.path):
                write_all(descriptor, data, self.received)
            self.received += count
            began = time.monotonic()
