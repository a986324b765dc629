"""Names in an LDAP directory: distinguished names of users, filters for their groups, and names of both. Pure.

Invariants, to re-check when editing:
1. A name of a user is one value in its distinguished name, whatever characters it has (RFC 4514).
2. A distinguished name is one value in a filter (RFC 4515).
3. A client is known by the name that the server writes: servers take `ANNA` for `anna`, and rules do not.
"""

import re
from collections.abc import Hashable, Sequence

from p2pmodel.errors import InvalidInput

try:
    from ldap import LDAPError
    from ldap.dn import escape_dn_chars, str2dn
    from ldap.filter import escape_filter_chars
except ImportError:
    raise InvalidInput(
        "ldap.url is set, and python-ldap is not installed",
        hint="install libldap-dev, libsasl2-dev and gcc, then pip install 'p2pmodel[ldap]'",
    ) from None

MOST_CHARACTERS = 128
_PLACE = "{user}"
_COMMON_NAME = ("cn", "commonname", "2.5.4.3")

Part = list[tuple[str, str]]
"""One part of a distinguished name: attributes with their values, mostly one."""


class UserPattern:
    """The setting `ldap.user_dn`: the distinguished name of a user, with `{user}` for the name."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        places = [
            (at, kind, value.split(_PLACE))
            for at, part in enumerate(parts_of(pattern) or [])
            for kind, value in part
            if _PLACE in value
        ]
        if len(places) != 1 or len(places[0][2]) != 2:
            raise InvalidInput(
                "ldap.user_dn is not a distinguished name with {user} in a value",
                hint="as uid={user},ou=people,dc=example,dc=org",
            )
        self._at, self._kind, (self._before, self._after) = places[0]

    def dn(self, name: str) -> str:
        """The distinguished name of the user `name`."""
        return self._pattern.replace(_PLACE, escape_dn_chars(name))

    def name(self, dn: str) -> str | None:
        """The name of the user in a distinguished name as the server writes it; None if there is none."""
        parts = parts_of(dn) or []
        part = parts[self._at] if self._at < len(parts) else []
        values = [value for kind, value in part if len(part) == 1 or kind.lower() == self._kind.lower()]
        if len(values) != 1:
            return None
        form = f"{re.escape(self._before)}(.+){re.escape(self._after)}"
        found = re.fullmatch(form, values[0], re.IGNORECASE | re.DOTALL)
        return found[1] if found and is_name(found[1]) else None


def is_name(name: str) -> bool:
    """Whether `name` may be that of a user: printable, of bounded length, without spaces at its ends."""
    return 0 < len(name) <= MOST_CHARACTERS and name.isprintable() and name.strip() == name


def group_name(dn: str) -> str:
    """`ml` of `cn=ml,ou=groups,...`; "" for a group without a printable common name."""
    parts = parts_of(dn)
    names = [value.strip() for kind, value in parts[0] if kind.lower() in _COMMON_NAME] if parts else []
    return names[0] if names and names[0].isprintable() else ""


def is_below(dn: str, base: str) -> bool:
    """Whether the entry `dn` lies below the entry `base`."""
    entry, above = _comparable(dn), _comparable(base)
    return len(entry) > len(above) > 0 and entry[-len(above) :] == above


def spelling(dn: str) -> Hashable:
    """A key that is equal for spellings of one distinguished name with other capitals and spaces."""
    return _comparable(dn)


def members_filter(dns: Sequence[str]) -> str:
    """The filter for groups that list one of the entries `dns` as a member."""
    each = "".join(f"(member={escape_filter_chars(dn)})" for dn in dns)
    return f"(|{each})" if len(dns) > 1 else each


def parts_of(dn: str) -> list[Part] | None:
    """The parts of a distinguished name, the entry's own first; None if it is malformed."""
    try:
        return [[(kind, value or "") for kind, value, _ in part] for part in str2dn(dn)]
    except (LDAPError, ValueError):
        return None


def _comparable(dn: str) -> tuple[frozenset[tuple[str, str]], ...]:
    return tuple(
        frozenset((kind.lower(), " ".join(value.casefold().split())) for kind, value in part)
        for part in parts_of(dn) or []
    )
