"""Tokens of coordinators, the keys derived from them, and the files that hold them."""

from pathlib import Path

import pytest

from p2pmodel.coordinator.tokens import announce_url, check_token, kept_token, new_token, read_tokens, without_key
from p2pmodel.core.network.tokens import announce_key
from p2pmodel.errors import InvalidInput
from tests.support.coordinators import TOKEN


@pytest.mark.parametrize(
    "text",
    ["", "only-15-letters", "has space in it somewhere", "slash/slash/slash/slash", "ünïcödetokenünïcöde", "x" * 129],
)
def test_a_token_is_long_and_has_few_kinds_of_characters(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_token(text, "the file x")
    assert not text or text not in str(caught.value)
    assert str(caught.value).startswith("the file x ")


def test_a_token_file_may_end_in_a_newline() -> None:
    assert check_token(f"{TOKEN}\n", "the file x") == TOKEN


def test_new_tokens_differ_and_are_tokens() -> None:
    assert check_token(new_token(), "x") != check_token(new_token(), "x")


def test_a_tracker_url_has_a_key_that_is_no_token() -> None:
    url = announce_url("http://c.test:1/", TOKEN)
    assert url == f"http://c.test:1/announce/{announce_key(TOKEN)}"
    assert TOKEN not in url
    assert announce_key(TOKEN) != announce_key(TOKEN + "x")
    assert announce_url("http://c.test:1", "") == "http://c.test:1/announce"


def written(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def test_a_file_has_one_token_or_one_for_each_coordinator(tmp_path: Path) -> None:
    assert read_tokens(written(tmp_path / "one", f"{TOKEN}\n")) == {"": TOKEN}
    two = written(tmp_path / "two", f"http://a.test/ {TOKEN}\nhttp://b.test {TOKEN}x\n")
    assert read_tokens(two) == {"http://a.test": TOKEN, "http://b.test": f"{TOKEN}x"}


@pytest.mark.parametrize("text", ["", "x", f"{TOKEN}\n{TOKEN}", f"nonsense {TOKEN}", f"http://a.test {TOKEN} x"])
def test_a_malformed_file_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_tokens(written(tmp_path / "token", text))
    assert TOKEN not in str(caught.value)


def test_a_kept_token_is_private_and_goes_with_its_coordinator(tmp_path: Path) -> None:
    path = tmp_path / "coordinators" / "here.token"
    with kept_token([path], TOKEN):
        assert read_tokens(path) == {"": TOKEN}
        assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        with kept_token([path], f"{TOKEN}x"):
            pass
        with kept_token([path], TOKEN):  # a coordinator that comes later replaces it
            path.write_text(f"{TOKEN}y")
    assert path.exists()


@pytest.mark.parametrize(
    ("tracker", "printed"),
    [
        (announce_url("https://coordinator:6969", "t" * 16), "https://coordinator:6969/announce"),
        (announce_url("http://[::1]:6969/below", "t" * 16) + "?zone=a", "http://[::1]:6969/below/announce"),
        ("https://tracker.example/announce/passkey", "https://tracker.example/announce"),
        ("https://tracker.example/0123456789abcdef0123456789abcdef/announce", "https://tracker.example/announce"),
        ("https://tracker.example/announce?passkey=secret", "https://tracker.example/announce"),
        ("https://u:p@tracker.example/announce.php#secret", "https://tracker.example/announce.php"),
        ("udp://tracker.example:1337", "udp://tracker.example:1337"),
    ],
)
def test_a_printed_tracker_has_no_key(tracker: str, printed: str) -> None:
    assert without_key(tracker) == printed
