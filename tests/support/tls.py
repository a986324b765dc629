"""TLS servers: one with a certificate that a client must reject, and one before a plain server."""

import asyncio
import queue
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.eventually import PATIENCE

_CONFIG = """
[ca]
default_ca = here
[here]
database = index
serial = serial
new_certs_dir = .
default_md = sha256
policy = any
x509_extensions = extensions
[any]
commonName = supplied
[req]
distinguished_name = name
prompt = no
[name]
CN = 127.0.0.1
[extensions]
subjectAltName = IP:127.0.0.1
basicConstraints = critical,CA:TRUE
"""


def certificate(folder: Path, start: str, end: str) -> tuple[Path, Path]:
    """A self-signed certificate of 127.0.0.1 valid from `start` to `end` (YYYYMMDDHHMMSSZ), and its key."""
    (folder / "openssl.cnf").write_text(_CONFIG)
    (folder / "index").touch()
    (folder / "serial").write_text("01\n")
    config = ["-config", "openssl.cnf"]
    request = ["req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "request.pem"]
    sign = ["ca", "-batch", "-notext", "-selfsign", "-in", "request.pem", "-keyfile", "key.pem", "-out", "cert.pem"]
    for command in ([*request, *config], [*sign, "-startdate", start, "-enddate", end, *config]):
        subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


@contextmanager
def tls_server(cert: Path, key: Path) -> Iterator[str]:
    """Complete the handshake with each client, then close the connection; yields the URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                with client, suppress(OSError):
                    client.settimeout(PATIENCE)
                    context.wrap_socket(client, server_side=True).close()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield f"https://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)


@contextmanager
def tls_front(context: ssl.SSLContext, target: str) -> Iterator[str]:
    """Forward TLS connections to the plain server at the URL `target`, as a proxy does; yields the https URL."""
    where = urlsplit(target)
    ports: queue.Queue[int] = queue.Queue()
    ends: queue.Queue[Callable[[], object]] = queue.Queue()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.CancelledError):
            inner, outer = await asyncio.open_connection(where.hostname, where.port)
            await asyncio.gather(pump(reader, outer), pump(inner, writer))

    async def serve() -> None:
        over = asyncio.Event()
        async with await asyncio.start_server(forward, "127.0.0.1", 0, ssl=context) as server:
            ports.put(server.sockets[0].getsockname()[1])
            ends.put(partial(asyncio.get_running_loop().call_soon_threadsafe, over.set))
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{ports.get(timeout=PATIENCE)}"
    finally:
        ends.get(timeout=PATIENCE)()
        thread.join(PATIENCE)
