"""A short fuzzing of every parser of input from others; `scripts/fuzz` does a long one."""

import random

import pytest

from p2pmodel.errors import InvalidInput
from scripts.fuzzing.__main__ import main
from scripts.fuzzing.mutation import mutated_bytes, mutated_text, mutated_value
from scripts.fuzzing.target import Tally, Target, try_once


def test_no_parser_raises_an_error_of_another_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seconds", "5", "--least", "5"]) == 0, capsys.readouterr().out
    assert " 0 failures" in capsys.readouterr().out


def test_a_parser_that_raises_another_error_is_found() -> None:
    def parse(data: bytes) -> int:
        if not data:
            raise InvalidInput("empty")
        return 1 // data[0]

    tally, dice = Tally(), random.Random(1)
    for _ in range(2000):
        try_once(Target("division", parse, [b"\x01\x02"]), tally, dice)
    assert tally.refused
    assert [place.partition(" at ")[0] for place in tally.failures] == ["ZeroDivisionError"]


def test_an_unprintable_message_is_found() -> None:
    def parse(data: bytes) -> None:
        raise InvalidInput(data.decode("latin-1"))

    tally = Tally()
    for seed in range(50):
        try_once(Target("message", parse, [b"\x1b[31m"]), tally, random.Random(seed))
    assert set(tally.failures) == {"unprintable message"}


def test_mutations_follow_from_the_seed() -> None:
    for mutate, data in ((mutated_bytes, b"data"), (mutated_text, "text"), (mutated_value, {"a": [1, {"b": "c"}]})):
        found = [mutate(data, random.Random(7)) for _ in range(2)]  # type: ignore[operator]
        assert found[0] == found[1]
