"""Sets of piece indexes as bytes, most significant bit first (BEP 3 bitfield), or as integers, bit p for piece p."""

from collections.abc import Iterable, Iterator


def pack(pieces: Iterable[int], count: int) -> bytes:
    """`pieces` (each below `count`) as a bitfield of ceil(count / 8) bytes."""
    field = bytearray(-(-count // 8))
    for piece in pieces:
        if not 0 <= piece < count:
            raise IndexError(piece)
        field[piece >> 3] |= 0x80 >> (piece & 7)
    return bytes(field)


def unpack(field: bytes, count: int) -> frozenset[int]:
    """Inverse of `pack`. Raises ValueError for a wrong length or a spare bit that is set."""
    if len(field) != -(-count // 8):
        raise ValueError(f"a bitfield of {count} pieces has {-(-count // 8)} bytes, not {len(field)}")
    found = frozenset(8 * i + bit for i, byte in enumerate(field) if byte for bit in range(8) if byte & (0x80 >> bit))
    if found and max(found) >= count:
        raise ValueError("spare bits are set")
    return found


def bits_of(pieces: Iterable[int]) -> int:
    """A set of piece indexes as an integer."""
    field = bytearray()
    for piece in pieces:
        place = piece >> 3
        if place >= len(field):
            field.extend(bytes(place + 1 - len(field)))
        field[place] |= 1 << (piece & 7)
    return int.from_bytes(field, "little")


def pieces_of(bits: int) -> Iterator[int]:
    """The piece indexes in an integer, ascending."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest
