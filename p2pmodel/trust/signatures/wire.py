"""The data types of SSH (RFC 4251): strings and numbers of fixed length, and the reader of both."""

import base64
import binascii

MAX_SIGNATURE = 32 << 10
"""Characters of the longest signature; one of an RSA key in a certificate has 4,000."""


class Malformed(ValueError):
    """Bytes that are not what they should be. The text says what is wrong, and becomes the reason of a refusal."""


class Reader:
    """Reads values from `data`, from its beginning. Raises Malformed where they end too early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_empty(self) -> bool:
        """Whether everything was read."""
        return self._at == len(self._data)

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        taken = self._data[self._at : self._at + count]
        if len(taken) < count:
            raise Malformed("it is cut off")
        self._at += count
        return taken

    def number(self, size: int = 4) -> int:
        """An unsigned number of `size` bytes."""
        return int.from_bytes(self.take(size))

    def string(self) -> bytes:
        """A string with its length before it."""
        return self.take(self.number())

    def text(self) -> str:
        """A string of ASCII characters."""
        try:
            return self.string().decode("ascii")
        except UnicodeDecodeError:
            raise Malformed("a name in it is not ASCII") from None

    def end(self) -> None:
        """Raise Malformed unless everything was read."""
        if not self.is_empty:
            raise Malformed("it is followed by other bytes")


def string(data: bytes | str) -> bytes:
    """`data` with its length before it."""
    raw = data.encode() if isinstance(data, str) else data
    return len(raw).to_bytes(4) + raw


def mpint(number: int) -> bytes:
    """A number that is not negative, as SSH's `mpint`."""
    return string(number.to_bytes(number.bit_length() // 8 + 1) if number else b"")


def decoded(text: str) -> bytes:
    """The bytes of base64 `text`. Raises Malformed."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("it is not base64") from None


def encoded(data: bytes) -> str:
    """`data` in base64."""
    return base64.b64encode(data).decode()
