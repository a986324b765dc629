"""Tokens as users give them: what is removed around them, and what is refused by the name of its place."""

import pytest

from p2pmodel.core.network.tokens import plain_password, plain_token
from p2pmodel.errors import InvalidInput


@pytest.mark.parametrize(
    "text",
    [
        "hf_right",
        "hf_right\n",
        "hf_right\r\n",
        "  hf_right\t",
        "\ufeffhf_right\n",
        '"hf_right"\n',
        "'hf_right'",
        "Bearer hf_right",
        "bearer  hf_right\n",
        '"Bearer hf_right"',
        "Bearer 'hf_right'",
    ],
)
def test_what_editors_and_secret_stores_add_is_removed(text: str):
    assert plain_token(text, "the variable X") == "hf_right"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the variable X is empty"),
        (" \n", "the variable X is empty"),
        ('""', "the variable X is empty"),
        ('"', "the variable X is empty"),
        ("Bearer ", "the variable X is empty"),
        ("hf_ri\nght", "the variable X holds no token: it contains a space or a line break"),
        ("hf_ri ght", "the variable X holds no token: it contains a space or a line break"),
        ("hf_r\u00efght", "the variable X holds no token: it contains a character that is not printable ASCII"),
        ("hf_ri\x07ght", "the variable X holds no token: it contains a character that is not printable ASCII"),
        ("hf_\u200bright", "the variable X holds no token: it contains a character that is not printable ASCII"),
    ],
)
def test_what_is_no_token_is_refused_by_its_place_and_not_shown(text: str, said: str):
    with pytest.raises(InvalidInput) as caught:
        plain_token(text, "the variable X")
    assert caught.value.what == said
    assert "ght" not in str(caught.value).replace("right", "")


def test_a_token_may_have_a_least_length():
    with pytest.raises(InvalidInput, match="the variable X holds a token of fewer than 16 characters"):
        plain_token('"short"', "the variable X", shortest=16)


def test_a_password_may_have_spaces_and_quotes():
    assert plain_password(" a 'b' \u00e9 \r\n", "x") == " a 'b' \u00e9 "
    for text, said in (("\n", "x is empty"), ("a\nb", "x holds no password: it contains a control character")):
        with pytest.raises(InvalidInput, match=said):
            plain_password(text, "x")
