"""What the command line prints: names and texts of others cannot control the terminal."""

import os
import sys

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
