"""URLs of trackers, and names of servers for messages."""

from collections.abc import Iterable
from urllib.parse import quote, urlsplit

from p2pmodel.coordinator.tracker.sources import Role


def announcing_as(role: Role, tracker: str) -> str:
    """`tracker` with the client's role as a parameter. Foreign trackers ignore parameters they do not implement."""
    return f"{tracker}{'&' if '?' in tracker else '?'}role={role}" if tracker.startswith("http") else tracker


def in_zone(tracker: str, zone: str) -> str:
    """A tracker's URL that requests peers of `zone` ("": any). Not for torrents, which nodes of all zones use."""
    if not zone or not tracker.startswith(("http://", "https://")):
        return tracker
    base, _, query = tracker.partition("?")
    return f"{base}?zone={quote(zone, safe='')}" + (f"&{query}" if query else "")


def advertising(tracker: str, addresses: Iterable[str]) -> str:
    """A tracker's URL that lists the client at `addresses`, each ADDRESS or ADDRESS:PORT."""
    for address in addresses:
        if tracker.startswith(("http://", "https://")):
            tracker = f"{tracker}{'&' if '?' in tracker else '?'}address={quote(address, safe='')}"
    return tracker


def as_peer(tracker: str, zone: str, addresses: Iterable[str] = ()) -> str:
    """`tracker` as a node of `zone` announces to it, reached at `addresses` (none: where it announces from)."""
    return advertising(in_zone(tracker, zone), addresses)


def public_name(url: str) -> str:
    """Name of a server for messages: its URL without path, query, user and password, which may contain secrets."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "a malformed URL"
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}:{port}" if port else f"{parts.scheme}://{name}"
