"""The addresses that this process listens on, so that a redirect cannot lead back to it.

Listening sockets belong to the process, not to one object in it; so does this record of them.
"""

import ipaddress
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

_open: Counter[tuple[str, int]] = Counter()


@contextmanager
def listening(host: str, port: int) -> Iterator[None]:
    """While the context lasts, this process listens on that address, which may be a wildcard."""
    _open[host, port] += 1
    try:
        yield
    finally:
        _open[host, port] -= 1
        if not _open[host, port]:
            del _open[host, port]


def is_own(host: str, port: int) -> bool:
    """Whether a connection to that address reaches a listener of this process."""
    return any(there == port and (address == host or _covers(address, host)) for address, there in tuple(_open))


def _covers(listener: str, host: str) -> bool:
    """Whether the wildcard address `listener` includes `host`, which is an address of this machine then."""
    if not ipaddress.ip_address(listener).is_unspecified:
        return False
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True
