"""A TLS server with a certificate that a client must reject."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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
