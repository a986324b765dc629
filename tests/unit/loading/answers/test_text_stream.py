"""Texts that end an answer are found in any chunking, and nothing that could begin one is passed on early."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.loading.answers.text_stream import StopTexts, ThinkingSplitter

PIECES = st.lists(
    st.sampled_from(["<think>", "</think>", "<", "</thin", "think>", "\n\n", " ", "a", "b c"]), max_size=8
)


def split(text: str, *, inside: bool, cuts: list[int] | None = None) -> tuple[str, str]:
    """(thinking, answer) of `text` fed in chunks that end at `cuts`."""
    splitter = ThinkingSplitter(inside=inside)
    ends = [*sorted(cuts or []), len(text)]
    parts = []
    start = 0
    for end in ends:
        parts += splitter.feed(text[start:end])
        start = max(start, end)
    parts += splitter.close()
    assert all(text for _, text in parts)
    return "".join(t for thinks, t in parts if thinks), "".join(t for thinks, t in parts if not thinks)


@pytest.mark.parametrize(
    ("text", "inside", "expected"),
    [
        ("first this\n</think>\n\nA cat.", True, ("first this\n", "A cat.")),
        ("never ends", True, ("never ends", "")),
        ("ends in a tag's beginning </thi", True, ("ends in a tag's beginning </thi", "")),
        ("</think>A cat.", True, ("", "A cat.")),
        ("A cat.", False, ("", "A cat.")),
        ("\n<think>\nhm\n</think>\nA cat.", False, ("hm\n", "A cat.")),
        ("The tag <think> is a tag.", False, ("", "The tag <think> is a tag.")),
        ("x</think>y</think>z", True, ("x", "y</think>z")),
        ("<thin ice", False, ("", "<thin ice")),
        ("<think", False, ("", "<think")),
        ("", True, ("", "")),
    ],
)
def test_examples(text: str, inside: bool, expected: tuple[str, str]) -> None:
    assert split(text, inside=inside) == expected
    assert split(text, inside=inside, cuts=list(range(len(text)))) == expected


@given(PIECES.map("".join), st.booleans(), st.data())
def test_chunking_does_not_change_the_result(text: str, inside: bool, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=6))
    assert split(text, inside=inside, cuts=cuts) == split(text, inside=inside)


def test_text_is_emitted_as_soon_as_it_is_complete() -> None:
    splitter = ThinkingSplitter(inside=True)
    assert list(splitter.feed("I see </th")) == [(True, "I see ")]
    assert list(splitter.feed("ree")) == [(True, "</three")]
    assert list(splitter.feed("</think>\n\nA")) == [(False, "A")]
    assert list(splitter.feed("<")) == [(False, "<")]


def parts(chunks: list[str], stops: list[str]) -> tuple[list[str], bool]:
    texts = StopTexts(stops)
    return [*(texts.feed(chunk) for chunk in chunks), texts.close()], texts.found


@pytest.mark.parametrize(
    ("chunks", "stops", "passed"),
    [
        (["one END two"], ["END"], ["one ", ""]),
        (["one E", "N", "D two"], ["END"], ["one ", "", "", ""]),
        (["one E", "N", "E"], ["END"], ["one ", "", "EN", "E"]),
        (["no stop"], [], ["no stop", ""]),
        (["a###b"], ["##", "b"], ["a", ""]),
        (["one EN"], ["END"], ["one ", "EN"]),
    ],
)
def test_what_may_begin_a_stop_text_is_held_back(chunks: list[str], stops: list[str], passed: list[str]) -> None:
    assert parts(chunks, stops)[0] == passed


@given(st.lists(st.text("abc", max_size=4)), st.lists(st.text("abc", min_size=1, max_size=3), max_size=3))
def test_any_chunking_gives_the_text_before_the_first_stop(chunks: list[str], stops: list[str]) -> None:
    whole = "".join(chunks)
    passed, found = parts(chunks, stops)
    text = "".join(passed)
    assert whole.startswith(text)
    assert not any(stop in text for stop in stops)
    assert found == any(stop in whole for stop in stops)
    assert found or text == whole
