"""Directories of users that a test opened: each is closed at its end."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from p2pmodel.trust.access.ldap import LdapDirectory

_OPENED: list["LdapDirectory"] = []


def opened(directory: "LdapDirectory") -> "LdapDirectory":
    """`directory`, which `none_stays_open` closes."""
    _OPENED.append(directory)
    return directory


@pytest.fixture(autouse=True)
async def none_stays_open() -> AsyncIterator[None]:
    """Close what the test opened."""
    yield
    while _OPENED:
        await _OPENED.pop().close()
