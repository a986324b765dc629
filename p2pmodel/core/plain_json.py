"""JSON from others: values that every reader can use, or ValueError.

`json.loads` also raises RecursionError, and returns numbers that `int` and `float` refuse later: infinity, NaN, and
integers that no float can hold.
"""

import json
import math
from typing import Any, NoReturn

MAX_DIGITS = 300
"""Digits of an integer: a float can hold 308."""


def parse_json(data: str | bytes) -> Any:
    """The value of the JSON text `data`. Raises ValueError."""
    try:
        text = data if isinstance(data, str) else data.decode(json.detect_encoding(data))
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError("a number has too many digits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_finite, parse_constant=_no_number)
"""`json.loads` makes a decoder at each call, in as much time as it needs for a short message."""
