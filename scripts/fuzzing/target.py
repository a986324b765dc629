"""A parser under test, and one run of it."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from p2pmodel.errors import P2PModelError
from scripts.fuzzing.mutation import mutated_bytes, mutated_text, mutated_value

Mutate = Callable[[Any, random.Random], Any]


def of_bytes(seed: bytes, dice: random.Random) -> bytes:
    """Mutated bytes."""
    return mutated_bytes(seed, dice)


def of_text(seed: str, dice: random.Random) -> str:
    """Mutated text."""
    return mutated_text(seed, dice)


def of_value(seed: Any, dice: random.Random) -> Any:
    """A mutated value."""
    return mutated_value(seed, dice)


@dataclass(frozen=True)
class Target:
    """`run` takes input like one of `seeds` after `mutate`. It may raise an error of the tree, or one of `expected`."""

    name: str
    run: Callable[[Any], object]
    seeds: Sequence[Any]
    mutate: Mutate = of_bytes
    expected: tuple[type[Exception], ...] = ()


@dataclass
class Tally:
    """The runs of one target. `failures`: by place of the exception, the exception and one input."""

    runs: int = 0
    refused: int = 0
    slowest: float = 0.0
    failures: dict[str, tuple[BaseException, Any]] = field(default_factory=dict)


def try_once(target: Target, tally: Tally, dice: random.Random) -> None:
    """Run `target` with one mutated input."""
    data = target.mutate(dice.choice(target.seeds), dice)
    tally.runs += 1
    began = time.perf_counter()
    try:
        target.run(data)
    except P2PModelError as error:
        tally.refused += 1
        if not str(error).isprintable():
            tally.failures.setdefault("unprintable message", (error, data))
    except target.expected:
        tally.refused += 1
    except Exception as error:  # noqa: BLE001 - what the run is for
        tally.failures.setdefault(_place(error), (error, data))
    tally.slowest = max(tally.slowest, time.perf_counter() - began)


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
    return f"{type(error).__name__} at {where}"
