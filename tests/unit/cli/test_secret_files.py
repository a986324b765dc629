"""Tokens of mirrors from files and environment variables."""

import pytest

from p2pmodel.cli.secret_files import SHORTEST_TOKEN, mirror_token
from p2pmodel.errors import InvalidInput


def test_a_server_accepts_no_short_token_as_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIVEN", "x" * (SHORTEST_TOKEN - 1))
    with pytest.raises(InvalidInput, match="GIVEN holds a token of fewer than 16 characters; make one with 'openssl"):
        mirror_token(None, "GIVEN", shortest=SHORTEST_TOKEN)
    assert mirror_token(None, "GIVEN") == "x" * (SHORTEST_TOKEN - 1), "for a mirror with a token of its own"
    monkeypatch.setenv("GIVEN", "x" * SHORTEST_TOKEN)
    assert mirror_token(None, "GIVEN", shortest=SHORTEST_TOKEN) == "x" * SHORTEST_TOKEN


def test_a_variable_without_a_token_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, said in ((None, "is not set"), (" ", "is empty"), ("a b", "holds no token")):
        if value is None:
            monkeypatch.delenv("GIVEN", raising=False)
        else:
            monkeypatch.setenv("GIVEN", value)
        with pytest.raises(InvalidInput, match=f"the environment variable GIVEN {said}"):
            mirror_token(None, "GIVEN")
