"""Plain text tables for a terminal; --json and --csv are for programs."""

from collections.abc import Sequence


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The header and the rows as lines: columns two spaces apart, no trailing blanks."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, *rows))
    return "\n".join(line.rstrip() for line in lines)


def milliseconds(seconds: float | None) -> str:
    """`seconds` as `12.3 ms`; `-` for None."""
    return "-" if seconds is None else f"{seconds * 1e3:.1f} ms"


def rate(bytes_a_second: float | None) -> str:
    """`bytes_a_second` as `36.0 MB/s`; `-` for None."""
    return "-" if bytes_a_second is None else f"{bytes_a_second / 1e6:.1f} MB/s"
