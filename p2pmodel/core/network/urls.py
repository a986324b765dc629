"""URLs as messages and logs show them: without the parts that may hold a secret."""

import re

from p2pmodel.core.content.names import printable

_HIDDEN = "…"
_KEY = re.compile(r"(/announce)/[^/\s'\"?#]+")


def shown(url: str, limit: int = 120) -> str:
    """`url`, well-formed or not, on one line: its user, password, announce key, query and fragment are replaced by
    `…`."""
    scheme, user, rest, query = _parts(url)
    rest = without_announce_keys(rest)
    user = f"{_HIDDEN}@" if user else ""
    return printable(f"{scheme}{user}{rest}{query[:1]}{_HIDDEN if query else ''}", limit)


def without_announce_keys(text: str) -> str:
    """`text`, which others may have written, with `…` for what follows `/announce/` in its URLs."""
    return _KEY.sub(rf"\1/{_HIDDEN}", text)


def names_user(url: str) -> bool:
    """Whether `url`, well-formed or not, contains a user name or a password."""
    return bool(_parts(url)[1])


def _parts(url: str) -> tuple[str, str, str, str]:
    """Scheme with `://`, user with `@`, host and path, query and fragment with their marks; each may be empty."""
    found = re.match(r"(\w[\w+.-]*://)?([^/?#]*@)?([^?#]*)(.*)", url, re.DOTALL)
    assert found is not None
    return found[1] or "", found[2] or "", found[3], found[4]
