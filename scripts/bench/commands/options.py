"""Options that several benchmarks share."""

import argparse
from collections.abc import Callable
from pathlib import Path

MACHINE_TURN = "wait until no other measurement runs on this machine, and let later ones wait"


def command_line(entry: str, description: str | None) -> argparse.ArgumentParser:
    """A parser for scripts/bench/ENTRY; the description keeps its line breaks."""
    return argparse.ArgumentParser(
        prog=f"scripts/bench/{entry}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_output(add: Callable[..., object], *, folder: str = "caches") -> None:
    """Add --dir and --json."""
    add("--dir", type=Path, help=f"folder for the {folder} (default: the temporary directory)")
    add("--json", type=Path, metavar="FILE", help="write all figures to this file")
