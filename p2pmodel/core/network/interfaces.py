"""The addresses of this machine's network interfaces, from the kernel (netlink, RTM_GETADDR)."""

import ipaddress
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

from p2pmodel.core.network.addresses import is_reachable

_REQUEST = struct.pack("=IHHIIB3x", 20, 22, 0x301, 0, 0, socket.AF_UNSPEC)
"""nlmsghdr (RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP) and rtgenmsg."""
_HEADER = struct.Struct("=IHHII")
_NEW_ADDRESS, _DONE, _ERROR = 20, 3, 2
_ADDRESS_HEADER = 8
_ATTRIBUTE = struct.Struct("=HH")
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_FAMILIES: dict[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 16}


def host_addresses() -> tuple[str, ...]:
    """The addresses by which other machines may reach this one, IPv4 first; empty where the kernel does not tell."""
    with suppress(OSError, AttributeError, struct.error):
        found = dict.fromkeys(address for address in _dump() if is_reachable(address))
        return tuple(sorted(found, key=lambda address: ":" in address))
    return ()


def _dump() -> Iterator[str]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as kernel:
        kernel.settimeout(1.0)
        kernel.send(_REQUEST)
        while True:
            answer = kernel.recv(65536)
            at = 0
            while at + _HEADER.size <= len(answer):
                length, kind, *_ = _HEADER.unpack_from(answer, at)
                if kind in (_DONE, _ERROR) or length < _HEADER.size:
                    return
                if kind == _NEW_ADDRESS:
                    yield from _address(answer[at + _HEADER.size : at + length])
                at += _aligned(length)


def _address(message: bytes) -> Iterator[str]:
    size = _FAMILIES.get(message[0])
    attributes: dict[int, bytes] = {}
    at = _ADDRESS_HEADER
    while at + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, at)
        if length < _ATTRIBUTE.size:
            break
        attributes[kind] = message[at + _ATTRIBUTE.size : at + length]
        at += _aligned(length)
    # On a point-to-point link IFA_ADDRESS is the other end.
    packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS, b"")
    if size == len(packed):
        yield str(ipaddress.ip_address(packed))


def _aligned(length: int) -> int:
    return (length + 3) & ~3
