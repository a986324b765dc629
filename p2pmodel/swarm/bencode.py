"""Bencode (BEP 3), in its canonical form only, and within bounds.

libtorrent's decoder accepts unsorted and repeated keys and trailing bytes, so two programs may read two different
torrents from one file. This decoder rejects them.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Bencoded: TypeAlias = "int | bytes | list[Bencoded] | dict[bytes, Bencoded]"
Encodable: TypeAlias = "int | bytes | str | Sequence[Encodable] | Mapping[bytes, Encodable] | Mapping[str, Encodable]"

MAX_DEPTH = 64
MAX_VALUES = 5_000_000
_MAX_DIGITS = 20
_DIGITS = b"0123456789"


class BencodeError(ValueError):
    """Not canonical bencode, or beyond the bounds. The message names the fault and the byte."""


class Truncated(BencodeError):
    """The data ends inside a value."""


def encode(value: Encodable) -> bytes:
    """The canonical encoding. Text is UTF-8; keys are sorted by their bytes."""
    out: list[bytes] = []
    _encode(value, out)
    return b"".join(out)


def _encode(value: Encodable, out: list[bytes]) -> None:
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, int):
        out.append(b"i%de" % value)
    elif isinstance(value, bytes):
        out += (b"%d:" % len(value), value)
    elif isinstance(value, Mapping):
        out.append(b"d")
        items = {key.encode() if isinstance(key, str) else key: child for key, child in value.items()}
        for key in sorted(items):
            _encode(key, out)
            _encode(items[key], out)
        out.append(b"e")
    else:
        out.append(b"l")
        for child in value:
            _encode(child, out)
        out.append(b"e")


def decode(data: bytes) -> Bencoded:
    """The value encoded in `data`. Raises BencodeError."""
    reader = _BencodeCursor(data)
    value = reader.value(0)
    reader.end()
    return value


def decode_dict(data: bytes) -> tuple[dict[bytes, Bencoded], dict[bytes, slice]]:
    """The dictionary encoded in `data`, and the position of each key's value in `data`.

    Raises BencodeError, also for a value that is no dictionary.
    """
    reader = _BencodeCursor(data)
    if data[:1] not in (b"d", b""):
        raise BencodeError("not a dictionary at byte 0")
    spans: dict[bytes, slice] = {}
    value = reader.dictionary(1, spans)
    reader.end()
    return value, spans


class _BencodeCursor:
    """A cursor over the data; every method moves it to the end of what it returned."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._values = 0

    def value(self, depth: int) -> Bencoded:
        self._values += 1
        if depth > MAX_DEPTH or self._values > MAX_VALUES:
            raise BencodeError(f"nested too deeply or too many values at byte {self._at}")
        kind = self._peek()
        if kind in _DIGITS:
            return self._text()
        if kind == b"d":
            return self.dictionary(depth + 1)
        if kind == b"l":
            return self._list(depth + 1)
        if kind == b"i":
            self._at += 1
            return self._integer(b"e")
        raise BencodeError(f"not bencode at byte {self._at}")

    def dictionary(self, depth: int, spans: dict[bytes, slice] | None = None) -> dict[bytes, Bencoded]:
        """The dictionary at the cursor; `spans`, if given, receives the position of each value."""
        self._peek()
        self._at += 1
        found: dict[bytes, Bencoded] = {}
        last: bytes | None = None
        while self._peek() != b"e":
            key_at = self._at
            key = self._text()
            if last is not None and key <= last:
                raise BencodeError(f"a dictionary key is repeated or out of order at byte {key_at}")
            last, start = key, self._at
            found[key] = self.value(depth)
            if spans is not None:
                spans[key] = slice(start, self._at)
        self._at += 1
        return found

    def end(self) -> None:
        """Raise unless all data was read."""
        if self._at != len(self._data):
            raise BencodeError(f"unexpected data after the end at byte {self._at}")

    def _list(self, depth: int) -> list[Bencoded]:
        self._at += 1
        found: list[Bencoded] = []
        while self._peek() != b"e":
            found.append(self.value(depth))
        self._at += 1
        return found

    def _text(self) -> bytes:
        length = self._integer(b":")
        start = self._at
        if length < 0:
            raise BencodeError(f"a negative length at byte {start}")
        if start + length > len(self._data):
            raise Truncated(f"the data ends at byte {len(self._data)}, inside a string")
        self._at = start + length
        return self._data[start : self._at]

    def _integer(self, end: bytes) -> int:
        stop = self._data.find(end, self._at, self._at + _MAX_DIGITS + 1)
        if stop < 0:
            if len(self._data) - self._at <= _MAX_DIGITS:
                raise Truncated(f"the data ends at byte {len(self._data)}, inside a number")
            raise BencodeError(f"not a number at byte {self._at}")
        digits = self._data[self._at : stop]
        plain = digits.removeprefix(b"-")
        if not plain.isdigit() or (plain.startswith(b"0") and digits != b"0"):
            raise BencodeError(f"not a number at byte {self._at}")
        self._at = stop + 1
        return int(digits)

    def _peek(self) -> bytes:
        if self._at >= len(self._data):
            raise Truncated(f"the data ends at byte {len(self._data)}")
        return self._data[self._at : self._at + 1]
