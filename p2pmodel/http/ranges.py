"""HTTP byte ranges and validators on the server side (RFC 9110, sections 13 and 14)."""

import re
from dataclasses import dataclass

_UNIT = re.compile(r"bytes[ \t]*=(.*)", re.IGNORECASE)
# 19 digits cover every file size; longer numbers are ignored.
_SPEC = re.compile(r"[ \t]*(?:([0-9]{1,19})-([0-9]{0,19})|-([0-9]{1,19}))[ \t]*")
_ETAG = re.compile(r'"([^"]*)"')


class RangeNotSatisfiable(ValueError):
    """The range starts behind the end of a file of `size` bytes; the response is 416."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the range lies behind the end of {size} bytes")
        self.size = size

    @property
    def content_range(self) -> str:
        """Value of the Content-Range header of the 416."""
        return f"bytes */{self.size}"


@dataclass(frozen=True, slots=True)
class ByteRange:
    """`length` bytes (at least one) from `start`, inside a file of `size` bytes."""

    start: int
    length: int
    size: int

    @property
    def content_range(self) -> str:
        """Value of the Content-Range header of the 206."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{self.size}"


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The single range in a Range header for a file of `size` bytes; None means the whole file.

    None also for all that a server may ignore by RFC 9110: no header, another unit, malformed ranges, several ranges,
    and a suffix of an empty file. Raises RangeNotSatisfiable.
    """
    unit = _UNIT.fullmatch(header or "")
    spec = _SPEC.fullmatch(unit[1]) if unit else None
    if spec is None:
        return None
    first, last, suffix = spec.groups()
    if suffix is not None:
        return _suffix(int(suffix), size)
    start = int(first)
    end = int(last) if last else max(start, size - 1)
    if end < start:
        return None
    if start >= size:
        raise RangeNotSatisfiable(size)
    return ByteRange(start, min(end, size - 1) - start + 1, size)


def _suffix(length: int, size: int) -> ByteRange | None:
    if length == 0:
        raise RangeNotSatisfiable(size)
    length = min(length, size)
    return ByteRange(size - length, length, size) if size else None


def not_modified(if_none_match: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names `etag` (unquoted), by weak comparison, or is `*`."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or etag in _ETAG.findall(if_none_match)


def range_applies(if_range: str | None, etag: str) -> bool:
    """Whether a Range applies: there is no If-Range header, or it is `etag` as a strong validator.

    A date never applies: files here have no modification time.
    """
    return if_range is None or if_range.strip() == f'"{etag}"'
