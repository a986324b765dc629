"""Texts that end an answer are found in any chunking, and nothing that could begin one is passed on early."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.loading.answers.stop_texts import StopTexts


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
