"""Byte counts and durations: parsing and formatting for people."""

import re

from p2pmodel.core.content.names import printable
from p2pmodel.errors import InvalidInput

_AMOUNT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)")
_SIZES = {"": 1, "b": 1, "bytes": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_SIZES |= {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_SIZES |= {"kbit": 125, "mbit": 125_000, "gbit": 125_000_000}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def human(size: float) -> str:
    """`size` bytes in decimal units: 1.5 GB."""
    unit = 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"


def bit_rate(rate: float) -> str:
    """`rate` bytes a second as network interfaces are named: 25 Gbit/s."""
    mbit = rate * 8 / 1e6
    return f"{mbit / 1000:g} Gbit/s" if mbit >= 1000 else f"{mbit:g} Mbit/s"


def duration(seconds: float) -> str:
    """`seconds` in its two largest units: 45 s, 3 min 20 s, 2 h 5 min, 4 d 3 h."""
    whole = max(0, round(seconds))
    for size, large, small, unit in ((86400, "d", "h", 3600), (3600, "h", "min", 60), (60, "min", "s", 1)):
        if whole >= size:
            rest = whole % size // unit
            return f"{whole // size} {large} {rest} {small}" if rest else f"{whole // size} {large}"
    return f"{whole} s"


def counted(count: int, one: str, many: str = "") -> str:
    """`1 peer`, `2 peers`; `many` if that is not `one` with an s."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def parse_size(text: str) -> int:
    """Bytes of `500GB`, `1.5 TB`, `64MiB`, `24Mbit` (a rate of 3 MB/s) or a plain number. Raises InvalidInput."""
    return round(_amount(text, _SIZES, "a size", "write 500GB, 64MiB, 24Mbit or a number of bytes"))


def parse_duration(text: str) -> float:
    """Seconds of `72h`, `30m`, `7d`, `45s` or a plain number. Raises InvalidInput."""
    return _amount(text, _SECONDS, "a time", "write 72h, 30m, 7d or a number of seconds")


def _amount(text: str, units: dict[str, int], what: str, hint: str) -> float:
    match = _AMOUNT.fullmatch(text.strip())
    unit = units.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise InvalidInput(f"'{printable(text, 40)}' is not {what}", hint=hint)
    return float(match[1]) * unit
