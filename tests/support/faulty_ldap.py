"""An LDAP server that fails at a chosen step of a login: it goes silent, ends the connection, or refuses StartTLS."""

import socket
import ssl
import threading
from contextlib import suppress
from typing import Literal, Self

from tests.support.eventually import PATIENCE

Step = Literal["accept", "starttls", "handshake", "bind", "search"]
How = Literal["silent", "ended", "refused"]

_SUCCESS, _PROTOCOL_ERROR = 0, 2
_BIND_RESPONSE, _EXTENDED_RESPONSE = 0x61, 0x78


class FaultyLdap:
    """It answers each step before `fails_at` with success. `with` starts and ends it."""

    def __init__(self, context: ssl.SSLContext, *, starttls: bool, fails_at: Step, how: How) -> None:
        self.passwords = 0
        """Bind requests that came over TLS."""
        self.plain: list[bytes] = []
        """What came before TLS."""
        self.reached = threading.Event()
        """A client is at the step that fails."""
        self._context, self._starttls, self._fails_at, self._how = context, starttls, fails_at, how
        self._ended = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        scheme = "ldap" if starttls else "ldaps"
        self.url = f"{scheme}://127.0.0.1:{self._listening.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._listening.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        self._listening.close()

    def release(self) -> None:
        """End the connections on which it is silent."""
        self._ended.set()

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(raw,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, raw: socket.socket) -> None:
        raw.settimeout(PATIENCE)
        with suppress(OSError), raw:
            if self._fails("accept"):
                return
            if self._starttls:
                number = self._plain_message(raw)
                if self._fails("starttls"):
                    if self._how == "refused":
                        raw.sendall(_response(number, _EXTENDED_RESPONSE, _PROTOCOL_ERROR))
                        self._plain_message(raw)
                    return
                raw.sendall(_response(number, _EXTENDED_RESPONSE, _SUCCESS))
            if self._fails("handshake"):
                return
            with self._context.wrap_socket(raw, server_side=True) as tls:
                number, _ = _message(tls)
                self.passwords += 1
                if self._fails("bind"):
                    return
                tls.sendall(_response(number, _BIND_RESPONSE, _SUCCESS))
                _message(tls)
                self._fails("search")

    def _plain_message(self, raw: socket.socket) -> int:
        number, whole = _message(raw)
        self.plain.append(whole)
        return number

    def _fails(self, step: Step) -> bool:
        """Whether it fails at this step; when it is to be silent, only after it was silent."""
        if step != self._fails_at:
            return False
        self.reached.set()
        if self._how == "silent":
            self._ended.wait(PATIENCE)
        return True


def _message(source: socket.socket) -> tuple[int, bytes]:
    """The number of the next message, and all of it. OSError at the end."""
    head = _exactly(source, 2)
    size = head[1]
    if size & 0x80:
        more = _exactly(source, size & 0x7F)
        head, size = head + more, int.from_bytes(more, "big")
    body = _exactly(source, size)
    return int.from_bytes(body[2 : 2 + body[1]], "big"), head + body


def _exactly(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        block = source.recv(size - len(data))
        if not block:
            raise OSError("the client ended the connection")
        data += block
    return data


def _response(number: int, kind: int, result: int) -> bytes:
    """A response with a result code, no matched name and no text."""
    inner = bytes([kind, 7, 0x0A, 1, result, 4, 0, 4, 0])
    return bytes([0x30, 3 + len(inner), 2, 1, number]) + inner
