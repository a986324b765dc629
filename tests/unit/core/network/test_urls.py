"""URLs in messages: no user, password, announce key, query or fragment."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.core.network.urls import names_user, shown


@pytest.mark.parametrize(
    ("url", "text", "user"),
    [
        ("https://hub.example/org/model", "https://hub.example/org/model", False),
        ("http://me:pass@h:1/p", "http://…@h:1/p", True),
        ("http://me@h", "http://…@h", True),
        ("http://a@b@h/", "http://…@h/", True),
        ("http://@h/", "http://…@h/", True),
        ("me:pass@h/p", "…@h/p", True),
        ("http://h/p?token=x#y", "http://h/p?…", False),
        ("http://h#y", "http://h#…", False),
        ("http://h/a@b", "http://h/a@b", False),
        ("http://me:pass@h:bad", "http://…@h:bad", True),
        ("http://h/\x1b[2J\u202e", "http://h/\ufffd[2J\ufffd", False),
        ("http://h/announce/k3y/x?a", "http://h/announce/…/x?…", False),
        ("http://h/announce/k3y", "http://h/announce/…", False),
        ("http://h/announce", "http://h/announce", False),
        ("", "", False),
    ],
)
def test_what_is_shown_of_a_url(url: str, text: str, user: bool) -> None:
    assert (shown(url), names_user(url)) == (text, user)


@given(st.text(), st.text())
def test_a_password_and_a_query_are_never_shown(before: str, after: str) -> None:
    secret = "s3cr3t"
    clean = {ord(c): None for c in "/?#@"}
    assert secret not in shown(f"http://{before.translate(clean)}:{secret}@host/{after}")
    assert secret not in shown(f"http://host/{before}?{after}{secret}")
