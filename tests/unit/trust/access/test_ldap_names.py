"""Names in distinguished names and filters: each is one value, whatever characters it has (RFC 4514, RFC 4515)."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("ldap", reason="the extra ldap is not installed")

from p2pmodel.trust.access.ldap_names import (
    UserPattern,
    group_name,
    is_below,
    is_name,
    members_filter,
    parts_of,
    spelling,
)

SPECIAL = st.sampled_from(list(',+"\\<>;=#*()/ \0{}\u00e9\U0001f600'))
NAMES = st.text(st.one_of(SPECIAL, st.characters(exclude_categories=["Cs"])), min_size=1, max_size=40)
PATTERNS = ["uid={user},ou=people,dc=example", "cn=staff-{user}+ou=x,dc=example", "dc=example+uid={user}"]


@pytest.mark.parametrize("text", PATTERNS)
@given(name=NAMES.filter(is_name))
def test_a_name_is_one_value_of_its_distinguished_name_and_comes_back(text: str, name: str) -> None:
    pattern = UserPattern(text)
    dn, plain = pattern.dn(name), parts_of(text)
    assert plain is not None
    expected = [[(kind, value.replace("{user}", name)) for kind, value in part] for part in plain]
    assert parts_of(dn) == expected
    assert pattern.name(dn) == name


@given(st.lists(NAMES, min_size=1, max_size=5))
def test_distinguished_names_are_values_of_a_filter_and_nothing_else(names: list[str]) -> None:
    text = members_filter(names)
    if len(names) > 1:
        assert (text[:2], text[-1]) == ("(|", ")")
        text = text[2:-1]
    values = re.findall(r"\(member=([^()*\0]*)\)", text)
    assert "".join(f"(member={value})" for value in values) == text, "nothing is outside of the values"
    assert [decoded(value) for value in values] == names


def decoded(value: str) -> str:
    """The assertion value of RFC 4515, 3: `\\` stands before two hex digits alone."""
    assert re.fullmatch(r"(?:[^\\]|\\[0-9a-fA-F]{2})*", value, re.DOTALL)
    data = re.sub(rb"\\([0-9a-fA-F]{2})", lambda found: bytes.fromhex(found[1].decode()), value.encode())
    return data.decode()


@given(NAMES)
def test_a_group_has_its_common_name_or_none(name: str) -> None:
    if is_name(name):
        assert group_name(UserPattern("cn={user},ou=groups").dn(name)) == name
    else:
        assert group_name(f"ou={name}") == ""


@pytest.mark.parametrize(
    ("dn", "name"),
    [
        ("cn=ml,ou=groups,dc=example", "ml"),
        (r"CN=a\,b,dc=example", "a,b"),
        (r"cn=a\2Cb+ou=x,dc=example", "a,b"),
        ("ou=x+cn=ml,dc=example", "ml"),
        ("2.5.4.3=ml,dc=example", "ml"),
        ("ou=ml,dc=example", ""),
        (r"cn=a\0Ab,dc=example", ""),
        ("no name", ""),
        ("", ""),
    ],
)
def test_names_of_groups(dn: str, name: str) -> None:
    assert group_name(dn) == name


@pytest.mark.parametrize(
    ("dn", "below"),
    [
        ("cn=ml,ou=groups,dc=example", True),
        ("CN=ml, OU=Groups , DC=EXAMPLE", True),
        ("cn=ml,ou=science,ou=groups,dc=example", True),
        ("ou=groups,dc=example", False),
        ("cn=ml,ou=printers,dc=example", False),
        (r"cn=ml\,ou=groups,dc=example", False),
        (r"cn=ml,ou=x\,ou=groups,dc=example", False),
        ("no name", False),
    ],
)
def test_what_lies_below_an_entry(dn: str, below: bool) -> None:
    assert is_below(dn, "ou=groups,dc=example") is below
    assert not is_below(dn, "no name")


def test_a_server_that_writes_another_form_names_no_user() -> None:
    pattern = UserPattern("uid=x-{user},dc=example")
    assert pattern.name("uid=X-anna,dc=example") == "anna"
    for other in ("uid=anna,dc=example", "uid=x-,dc=example", "", "no name", r"uid=x-a\0Ab,dc=example"):
        assert pattern.name(other) is None
    assert spelling("UID=Anna,  dc=Example") == spelling("uid=anna,dc=example")
