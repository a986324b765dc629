"""Messages about a private swarm between a node and its coordinator, as JSON text.

The node sends one `MembershipRequest`. The coordinator sends a `MembershipGrant` whenever that changes, and before the
certificate in it expires. It is a whole state, not a difference.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from p2pmodel.core.network.addresses import is_ip
from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import InvalidInput

MAX_REQUEST = 16 << 10
"""Bytes of the longest request."""
MAX_MEMBERSHIP = 4 << 20
"""Bytes of the longest answer: 65,536 addresses of IPv6."""
MOST_ADDRESSES = 8
"""Addresses of one node; further ones are ignored."""
_MOST_PEM = 8 << 10
_SERIAL = re.compile(r"[0-9a-f]{1,40}")


@dataclass(frozen=True, slots=True)
class MembershipRequest:
    """`request`: a certificate request (PEM). `addresses`: IP addresses from which the node connects to its peers, and
    at which it listens, besides that of the connection."""

    request: str
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MembershipGrant:
    """`certificate` (PEM) opens the swarm for this node. `admitted`: addresses of the nodes in it; `barred`: addresses
    of nodes that were put out: connections to them must end. `withdrawn`: serial numbers (hexadecimal) of certificates
    of such nodes that have not expired. `http_only`: the `barred` addresses that a node in the swarm has, too: sources
    serve them, and the certificate decides. `http_only_for`: seconds for which that holds for this node's own
    addresses; 0 if it does for none."""

    certificate: str = field(repr=False)
    admitted: tuple[str, ...] = ()
    barred: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()
    http_only: tuple[str, ...] = ()
    http_only_for: float = 0.0


def membership_path(info_hash: str) -> str:
    """Path of a private swarm below a coordinator's base URL."""
    return f"/private/{info_hash}"


def text_of(message: MembershipRequest | MembershipGrant) -> str:
    """`message` as JSON text."""
    return json.dumps(asdict(message), separators=(",", ":"))


def parse_request(text: str) -> MembershipRequest:
    """The reverse of `text_of`. Raises InvalidInput."""
    plain = _object(text)
    request = plain.get("request")
    if not isinstance(request, str) or len(request) > _MOST_PEM:
        raise InvalidInput("the message holds no certificate request")
    return MembershipRequest(request, _addresses(plain.get("addresses", ()))[:MOST_ADDRESSES])


def parse_membership(text: str) -> MembershipGrant:
    """The reverse of `text_of`. Raises InvalidInput."""
    plain = _object(text)
    certificate = plain.get("certificate")
    if not isinstance(certificate, str) or len(certificate) > _MOST_PEM:
        raise InvalidInput("the message holds no certificate")
    admitted, barred, http_only = (_addresses(plain.get(name, ())) for name in ("admitted", "barred", "http_only"))
    seconds = plain.get("http_only_for", 0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds < 0:
        raise InvalidInput("the message does not say for how many seconds this node exchanges over HTTP alone")
    withdrawn = _serials(plain.get("withdrawn", ()))
    return MembershipGrant(certificate, admitted, barred, withdrawn, http_only, float(seconds))


def _object(text: str) -> dict[str, Any]:
    try:
        plain = parse_json(text)
    except ValueError:
        plain = None
    if not isinstance(plain, dict):
        raise InvalidInput("the message is not a JSON object")
    return plain


def _serials(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list | tuple):
        raise InvalidInput("the message holds no list of serial numbers")
    return tuple(value for value in values if isinstance(value, str) and _SERIAL.fullmatch(value))


def _addresses(values: Any) -> tuple[str, ...]:
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise InvalidInput("the message holds no list of addresses")
    return tuple(value for value in values if isinstance(value, str) and is_ip(value))
