"""JSON bodies of mirrors, with bounds on what a response may cost: bytes after decompression, and values."""

import asyncio
import zlib
from collections.abc import Callable, Iterator
from typing import TypeVar

from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import P2PModelError, Unavailable
from p2pmodel.http_pool import PeerResponse
from p2pmodel.origin.failures import Failed, Refused, next_block
from p2pmodel.origin.responses import compression

T = TypeVar("T")

MAX_BODY = 16 << 20
"""Bytes of one body after decompression: the names of 150,000 files, or one page with the hashes of 50,000."""
MAX_VALUES = 1_000_000
"""Values of one body: each takes up to 250 bytes once it is parsed."""

_BLOCK = 64 << 10
_INLINE = 64 << 10
"""Bytes up to which a body is parsed on the event loop, in less than a millisecond or two."""
_GZIP = 16 + zlib.MAX_WBITS

NOT_A_HUB = "its response is not a hub's (an error page?)"


async def parsed(response: PeerResponse, parse: Callable[[object], T]) -> tuple[T, int]:
    """`parse` of the JSON in the body of `response`, and its bytes. A large body is parsed in a thread.

    `parse` raises TypeError, KeyError or ValueError for a value that no hub sends, or an error of the tree. Raises
    Failed and Refused.
    """
    data = await _read(response)
    found = _decode(data, parse) if len(data) <= _INLINE else await asyncio.to_thread(_decode, data, parse)
    return found, len(data)


def _decode(data: bytes, parse: Callable[[object], T]) -> T:
    """`parse` of the JSON `data`. Raises Refused."""
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_VALUES:
        raise Refused(f"its listing has more than {MAX_VALUES} values", Unavailable)
    try:
        return parse(parse_json(data))
    except P2PModelError as error:
        raise Refused(str(error), type(error)) from None
    # json.loads also raises RecursionError, and UnicodeDecodeError, which is a ValueError.
    except (ValueError, TypeError, KeyError):
        raise Refused(NOT_A_HUB, Unavailable) from None


async def _read(response: PeerResponse) -> bytes:
    encoding = compression(response.headers)
    if encoding not in ("", "gzip"):
        raise Refused(f"a {encoding}-compressed body that was not requested", Unavailable)
    inflate = _Inflation() if encoding else None
    blocks: list[bytes] = []
    size = 0
    while True:
        block, failure = await next_block(response, _BLOCK)
        if failure is not None:
            raise failure
        for part in inflate.parts(block) if inflate else (block,):
            size += len(part)
            if size > MAX_BODY:
                raise Refused(f"its listing is larger than {MAX_BODY >> 20} MiB", Unavailable)
            blocks.append(part)
        if not block:
            break
    if inflate and not inflate.complete:
        raise Failed("connection closed before the end")
    return b"".join(blocks)


class _Inflation:
    """Decompression of one gzip body, in parts of bounded size."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(_GZIP)

    @property
    def complete(self) -> bool:
        """Whether the end of the compressed data has come."""
        return self._inflate.eof

    def parts(self, block: bytes) -> Iterator[bytes]:
        """The data in the next `block`. Raises Refused."""
        while block:
            try:
                part = self._inflate.decompress(block, _BLOCK)
            except zlib.error:
                raise Refused("a damaged gzip body", Unavailable) from None
            if self._inflate.unused_data:
                raise Refused("bytes after its gzip body", Unavailable)
            block = self._inflate.unconsumed_tail
            yield part
