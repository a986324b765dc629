"""The other end of a connection: the user of its process on this machine, or what its certificate says.

A unix socket reports its peer. For TCP over loopback the kernel is asked for the peer's socket, by netlink (sock_diag),
else in /proc/net/tcp. A socket that its process has closed has no inode, and its user is unknown. A certificate was
verified by the TLS handshake.
"""

import ipaddress
import os
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from p2pmodel.core.content.names import printable

_SOCK_DIAG = 4
_BY_FAMILY = 20
_REQUEST = 1
_HEADER = struct.Struct("=IHHII")
_QUERY = struct.Struct("=BBBxI")
_SOCKET_ID = struct.Struct("!HH16s16s12s")
_NO_COOKIE = bytes(4) + b"\xff" * 8
_ANSWER = struct.Struct("=BBxx48x12xII")
_CONNECTED = {1, 4, 5}
"""TCP_ESTABLISHED, and TCP_FIN_WAIT1 and 2: the peer has sent all of its request."""
_PEERCRED = struct.Struct("=iII")
_PROC = ("/proc/net/tcp", "/proc/net/tcp6")

Endpoint = tuple[str, int]


def unix_owner(connection: socket.socket) -> int | None:
    """The user id of the process that connected to a unix socket; None if it is unknown."""
    try:
        return int(_PEERCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))[1])
    except (OSError, AttributeError):
        return None


def tcp_owner(peer: Endpoint, local: Endpoint) -> int | None:
    """The user id of the process with the TCP socket at the address `peer` that is connected to `local`.

    None if it is unknown: the process has closed the socket, lives in another network namespace, or the kernel does
    not answer.
    """
    with suppress(OSError, AttributeError, ValueError, struct.error):
        found = _ask_kernel(peer, local)
        if found is not None:
            return found
    with suppress(OSError, ValueError):
        return _search(peer, local)
    return None


def is_own(user: int | None) -> bool:
    """Whether `user` is this process's user or root."""
    return user is not None and user in (os.geteuid(), 0)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    known = ipaddress.ip_address(host.partition("%")[0])
    return known.ipv4_mapped or known if isinstance(known, ipaddress.IPv6Address) else known


def _ask_kernel(peer: Endpoint, local: Endpoint) -> int | None:
    source, target = _address(peer[0]), _address(local[0])
    family = socket.AF_INET if source.version == 4 else socket.AF_INET6
    query = _QUERY.pack(family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + _SOCKET_ID.pack(
        peer[1], local[1], source.packed.ljust(16, b"\0"), target.packed.ljust(16, b"\0"), _NO_COOKIE
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG) as kernel:
        kernel.settimeout(1.0)
        kernel.send(_HEADER.pack(_HEADER.size + len(query), _BY_FAMILY, _REQUEST, 0, 0) + query)
        answer = kernel.recv(4096)
    if _HEADER.unpack_from(answer)[1] != _BY_FAMILY:
        return None
    _, state, user, inode = _ANSWER.unpack_from(answer, _HEADER.size)
    return int(user) if inode and state in _CONNECTED else None


def _search(peer: Endpoint, local: Endpoint) -> int | None:
    wanted = (_address(peer[0]), peer[1]), (_address(local[0]), local[1])
    for name in _PROC:
        for fields in _rows(Path(name)):
            if (_parsed(fields[1]), _parsed(fields[2])) == wanted:
                known = int(fields[9]) and int(fields[3], 16) in _CONNECTED
                return int(fields[7]) if known else None
    return None


def _rows(path: Path) -> Iterator[list[str]]:
    with suppress(FileNotFoundError), path.open(encoding="ascii") as lines:
        next(lines, None)
        for line in lines:
            yield line.split()


def _parsed(text: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    host, _, port = text.partition(":")
    words = [int(host[at : at + 8], 16) for at in range(0, len(host), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return _address(str(ipaddress.ip_address(packed))), int(port, 16)


MOST_NAME = 64


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """`names`: the host names that it is for; `serial`: its number, hexadecimal; `expires`: seconds since 1970."""

    names: frozenset[str]
    serial: str
    expires: float


def client_certificate(request: web.Request) -> ClientCertificate | None:
    """The verified certificate of the client; None without one."""
    found = request.transport.get_extra_info("peercert") if request.transport else None
    if not found:
        return None
    names = frozenset(str(value) for kind, value in found.get("subjectAltName", ()) if kind == "DNS")
    return ClientCertificate(
        names, f"{int(found['serialNumber'], 16):x}", ssl.cert_time_to_seconds(str(found["notAfter"]))
    )


def certificate_name(request: web.Request) -> str:
    """The common name in the verified certificate of the client; "" without a certificate, or without a name."""
    found = request.transport.get_extra_info("peercert") if request.transport else None
    for attribute in (pair for group in (found or {}).get("subject", ()) for pair in group):
        if attribute[0] == "commonName":
            return printable(str(attribute[1]), MOST_NAME)
    return ""


def has_certificate(request: web.Request) -> bool:
    """Whether the client has presented a certificate of the authorities that the server trusts."""
    return bool(request.transport and request.transport.get_extra_info("peercert"))
