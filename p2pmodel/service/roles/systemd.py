"""Status messages to systemd (sd_notify) for services of Type=notify."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress


def notify(state: str, environ: Mapping[str, str] = os.environ) -> None:
    """Send `state`, as in `READY=1`, to the socket NOTIFY_SOCKET; without that variable do nothing.

    Errors are ignored: an unreachable supervisor must not stop the service.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
        line.settimeout(1.0)
        line.connect("\0" + address[1:] if address.startswith("@") else address)
        line.sendall(state.encode())
