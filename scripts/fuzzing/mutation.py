"""Mutation of valid input: bytes, text, and values of JSON or bencode. Deterministic for a seed."""

import random
from collections.abc import Callable
from typing import Any

BAD_BYTES = (b"", b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\r\n", b"-1", b"9" * 30, b"i", b"e", b"[", b"{", b'"', b"%")
BAD_TEXTS = (
    "",
    "\x00",
    "\ud800",
    "\u202e",
    "..",
    "/",
    "\\",
    "%00",
    "a" * 5000,
    "\n",
    "-1",
    "9" * 30,
    "\u0661",
    "1e999",
)
BAD_NUMBERS: tuple[Any, ...] = (
    0,
    -1,
    1,
    2**31,
    2**53 + 1,
    2**63,
    2**64,
    10**30,
    10**300,
    10**400,
    1.5,
    -0.0,
    1e308,
    float("inf"),
    True,
)
BAD_VALUES: tuple[Any, ...] = (None, [], {}, [[]], {"": None}, "x", *BAD_TEXTS, *BAD_NUMBERS)
_DEEP = 2000


def mutated_bytes(data: bytes, dice: random.Random) -> bytes:
    """`data` with one to four changes: bits, pieces removed, repeated, exchanged, or replaced by odd ones."""
    found = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randint(0, len(found))
        end = min(len(found), at + dice.choice((1, 1, 2, 8, 64)))
        match dice.randrange(6):
            case 0 if at < len(found):
                found[at] ^= 1 << dice.randrange(8)
            case 1:
                del found[at:end]
            case 2:
                found[at:at] = found[at:end]
            case 3:
                found[at:end] = dice.choice(BAD_BYTES)
            case 4:
                other = dice.randint(0, len(found))
                found[at:end] = found[other : other + dice.randint(0, 64)]
            case _:
                found[at:end] = dice.randbytes(end - at)
    return bytes(found[: dice.randint(0, len(found))] if dice.random() < 0.1 else found)


def mutated_text(text: str, dice: random.Random) -> str:
    """`text` with changes as of `mutated_bytes`, and with characters that are no text."""
    found = mutated_bytes(text.encode("utf-8", "surrogatepass"), dice).decode("utf-8", "surrogateescape")
    if dice.random() < 0.3:
        at = dice.randint(0, len(found))
        found = found[:at] + dice.choice(BAD_TEXTS) + found[at + dice.randint(0, 3) :]
    return found


def mutated_value(value: Any, dice: random.Random, odd: Callable[[random.Random], Any] | None = None) -> Any:
    """`value`, of lists and dicts, with one to three parts replaced, removed, repeated or renamed. `odd` makes what
    a part is replaced by."""
    make = odd or _odd
    for _ in range(dice.randint(1, 3)):
        value = _changed(value, dice, make)
    return value


def _changed(value: Any, dice: random.Random, make: Callable[[random.Random], Any]) -> Any:
    if not isinstance(value, dict | list) or not value or dice.random() < 0.15:
        return make(dice)
    return _changed_list(value, dice, make) if isinstance(value, list) else _changed_table(value, dice, make)


def _changed_list(value: list[Any], dice: random.Random, make: Callable[[random.Random], Any]) -> list[Any]:
    at = dice.randrange(len(value))
    match dice.randrange(5):
        case 0:
            return value[:at] + value[at + 1 :]
        case 1:
            return [*value, value[at]]
        case _:
            return [*value[:at], _changed(value[at], dice, make), *value[at + 1 :]]


def _changed_table(value: dict[Any, Any], dice: random.Random, make: Callable[[random.Random], Any]) -> dict[Any, Any]:
    key = dice.choice(sorted(value))
    rest = {k: v for k, v in value.items() if k != key}
    match dice.randrange(6):
        case 0:
            return rest
        case 1:
            odd = make(dice)
            return rest | {(odd if isinstance(odd, type(key)) else key): value[key]}
        case _:
            return value | {key: _changed(value[key], dice, make)}


def _odd(dice: random.Random) -> Any:
    if dice.random() < 0.02:
        deep: Any = 0
        for _ in range(_DEEP):
            deep = [deep]
        return deep
    return dice.choice(BAD_VALUES)
