"""Texts of a tracker about an announce, in its failures and warnings. Nodes pass them on to their users."""

import re
from collections.abc import Iterable

from p2pmodel.coordinator.tokens import MEMBER_SETTING, WRONG_KEY

NOT_ADMITTED = "this tracker does not admit the advertised address"
"""The client advertises an address that it does not announce from, and has no right to."""

UNTRUSTED_PROXY = "an announce through a proxy that http.trusted_proxies does not name"
"""The tracker sees the proxy's address alone, at which no peer is reached."""

NOT_IN_PRIVATE_SWARM = "no node at this address is in the private swarm of this torrent"
"""An announce key alone admits no client to a private swarm."""

UNREACHABLE = "peers cannot connect to this client at"
"""The tracker tried to connect, and could not."""

ADVICE = {
    UNREACHABLE: "open that TCP port to the other nodes, or set swarm.advertise (--advertise); until then this node "
    "exchanges only with nodes that it connects to",
    UNTRUSTED_PROXY: "set http.trusted_proxies of the coordinator to the proxy's address",
    WRONG_KEY: f"check {MEMBER_SETTING}",
    NOT_IN_PRIVATE_SWARM: "the connection of the node to the coordinator admits it: see the messages about it",
    NOT_ADMITTED: "the coordinator needs a member token, or this node's network in tracker.ip_from",
}
"""Each text, and what helps."""

MOST_PIECES = 16
"""Pieces of one torrent that are reported to one peer."""
_MARK = re.compile(r"p2pmodel-check:([0-9]{1,9}(?:,[0-9]{1,9})*)")


def not_admitted(addresses: Iterable[str]) -> str:
    """The warning to a client that advertises `addresses`."""
    return f"{NOT_ADMITTED} {', '.join(addresses)}"


def unreachable(address: str, failure: str) -> str:
    """The warning to a client that listens at `address`."""
    return f"{UNREACHABLE} {address} ({failure})"


def advice_in(message: str) -> tuple[str, str] | None:
    """The text of `ADVICE` in a tracker's `message`, and the advice; None for other messages."""
    return next(((text, advice) for text, advice in ADVICE.items() if text in message), None)


def warning_text(pieces: Iterable[int]) -> str:
    """The warning for a peer, as other clients show it; `pieces_in` reads it."""
    return f"peers received bad pieces from this client, check its disk (p2pmodel-check:{','.join(map(str, pieces))})"


def pieces_in(message: str) -> tuple[int, ...]:
    """The pieces that a tracker's warning names; none in any other warning."""
    found = _MARK.findall(message)
    return tuple(map(int, found[-1].split(",")))[:MOST_PIECES] if found else ()
