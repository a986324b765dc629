"""Credentials that change while the coordinator serves."""

import pytest

from p2pmodel.coordinator.server.credentials import LOCAL, Credentials, Rights
from p2pmodel.errors import AccessDenied


def rights(credentials: Credentials, token: str) -> Rights:
    return credentials.authorized(f"Bearer {token}", Rights.NONE).rights


def test_new_tokens_replace_those_before() -> None:
    credentials = Credentials("m1", {"a": "p1"}, "a1")
    credentials.change(Credentials("m2", {"a": "p2"}, None))
    assert (rights(credentials, "m2"), rights(credentials, "p2")) == (Rights.MEMBER, Rights.PUBLISHER)
    for old in ("m1", "p1", "a1"):
        with pytest.raises(AccessDenied):
            rights(credentials, old)


def test_the_publisher_of_this_user_stays() -> None:
    credentials = Credentials("m1", {LOCAL: "p1"})
    credentials.change(Credentials("m2"))
    assert rights(credentials, "p1") is Rights.PUBLISHER


def test_a_member_token_is_never_dropped() -> None:
    credentials = Credentials("m1")
    credentials.change(Credentials())
    with pytest.raises(AccessDenied):
        credentials.authorized("", Rights.NONE)
