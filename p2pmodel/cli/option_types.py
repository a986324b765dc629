"""Types of options and arguments that refuse what no command can use: empty paths, numbers that are not finite."""

import math
from pathlib import Path
from typing import Any

import click

LARGEST = (1 << 63) - 1
"""Largest number of an option: that of the system's calls and of the libraries."""


class PathName(click.Path):
    """A path. An empty one is refused: a variable of the shell that is not set would mean the current folder."""

    def __init__(self, *, allow_dash: bool = False, exists: bool = False, file_okay: bool = True) -> None:
        super().__init__(path_type=Path, allow_dash=allow_dash, exists=exists, file_okay=file_okay)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the path is empty", param, ctx)
        return super().convert(value, param, ctx)


class Number(click.FloatRange):
    """A finite number of at least `min`: `nan` is in every range of click, and no wait takes `inf`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


class Count(click.IntRange):
    """A whole number of at least `min` and at most `max`, within 64 bits."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if abs(number) > LARGEST:
            self.fail(f"{number} is too large", param, ctx)
        return number
