"""Byte counts as people read them."""

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def human(size: float) -> str:
    """`size` bytes in decimal units, as disks and links are sold: 1.5 GB."""
    unit = 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"
