"""The bytes of an interrupted response that the client's kernel acknowledged."""

import asyncio
import socket
import struct

# struct tcp_info of linux/tcp.h: tcpi_bytes_acked, since Linux 4.1.
_BYTES_ACKED = struct.Struct("=Q")
_OFFSET = 120


class Delivery:
    """Counts the acknowledged bytes of one response on `transport`; create it before the response is sent.

    A cancelled or failed sendfile does not return how much of its chunk it sent. The rest of the socket buffer is lost
    when the client disconnects. `head` is the size of status line and headers.
    """

    def __init__(self, transport: asyncio.BaseTransport | None) -> None:
        self._socket = transport.get_extra_info("socket") if transport is not None else None
        self._before = self._acknowledged()
        self.head = 0

    def body_bytes(self, otherwise: int) -> int:
        """Body bytes acknowledged so far; `otherwise` if the kernel does not report them."""
        now = self._acknowledged()
        if now is None or self._before is None:
            return otherwise
        return max(0, now - self._before - self.head)

    def _acknowledged(self) -> int | None:
        if self._socket is None:
            return None
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _OFFSET + _BYTES_ACKED.size)
            acknowledged: int = _BYTES_ACKED.unpack_from(info, _OFFSET)[0]
        except (OSError, AttributeError, struct.error):  # closed, not TCP, not Linux, or an old kernel
            return None
        return acknowledged
