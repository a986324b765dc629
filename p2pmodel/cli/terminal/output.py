"""What the command line prints: names and texts of others cannot control the terminal; tables are plain text."""

import os
import sys
from collections.abc import Sequence

import click


def echo(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Print `text` on stdout, or with `err` on stderr, without control and bidirectional characters."""
    click.echo(visible(text), err=err, nl=nl)


def result(text: str) -> None:
    """Print the result of a command: as `echo` on a terminal, and byte by byte for a program that reads it."""
    if sys.stdout.isatty():
        echo(text)
    else:
        click.echo(os.fsencode(text))


def visible(text: str) -> str:
    """`text` with its lines and tabs, and with a replacement for every other character that is not shown."""
    # Covers C0 and C1 controls, bidirectional and other format characters, separators, and broken surrogates.
    return "".join(c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


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
