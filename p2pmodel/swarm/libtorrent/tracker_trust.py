"""Additional certificate authorities for libtorrent's trackers.

libtorrent has no setting for them. It reads the file that SSL_CERT_FILE names, instead of the system's, when a session
is made.
"""

import os
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from p2pmodel.core.files.own_files import opened

_VARIABLE = "SSL_CERT_FILE"
_SYSTEM = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
"""Where libtorrent looks, of Debian and of Red Hat."""
_changing = threading.Lock()


@contextmanager
def trusting(ca_file: Path | None) -> Iterator[None]:
    """Sessions that are made in this context also trust the authorities in `ca_file`. Raises InvalidInput."""
    if ca_file is None:
        yield
        return
    with opened(ca_file, "coordinator_ca_file") as descriptor, os.fdopen(os.dup(descriptor), "rb") as file:
        own = file.read()
    with _changing, tempfile.NamedTemporaryFile(prefix="p2pmodel-ca-") as bundle:
        bundle.write(_system_authorities() + b"\n" + own)
        bundle.flush()
        before = os.environ.get(_VARIABLE)
        os.environ[_VARIABLE] = bundle.name
        try:
            yield
        finally:
            if before is None:
                del os.environ[_VARIABLE]
            else:
                os.environ[_VARIABLE] = before


def _system_authorities() -> bytes:
    for path in (os.environ.get(_VARIABLE), ssl.get_default_verify_paths().cafile, *_SYSTEM):
        if path and Path(path).is_file():
            return Path(path).read_bytes()
    return b""
