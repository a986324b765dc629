"""The HTTP tracker protocol in bytes: announce (BEP 3, 7, 23, 24) and scrape (BEP 48), without any I/O.

Queries are parsed from the raw query string: an info-hash is 20 arbitrary bytes in %-escapes, which no text decoding
preserves. A v2 info-hash is announced by its first 20 bytes (BEP 52).
"""

import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from p2pmodel.coordinator.tracker.announces import AnnounceAnswer
from p2pmodel.coordinator.tracker.sources import Role
from p2pmodel.coordinator.tracker.tracked_swarm import Announce, Counts, Event, TrackedPeer
from p2pmodel.core.network.addresses import AdvertisedAddress, ListenAddress
from p2pmodel.errors import InvalidInput
from p2pmodel.swarm import bencode
from p2pmodel.swarm.bencode import Encodable

MAX_QUERY = 8190
"""Longest query string in characters."""
DEFAULT_NUMWANT = 50
MAX_NUMWANT = 200
MAX_ZONE = 64
"""Bytes of the longest name of a zone."""
MAX_SCRAPE = 74
"""Most info-hashes in one scrape, as in a UDP scrape (BEP 15)."""

_ID = 20
_MAX_KEY = 64
_NUMBER = re.compile(rb"-?[0-9]{1,20}")
_EVENTS: Mapping[bytes, Event] = {
    b"started": "started",
    b"stopped": "stopped",
    b"completed": "completed",
    b"paused": "paused",
}

_ROLES: Mapping[bytes, Role] = {b"source": "source", b"leaseholder": "leaseholder", b"crossing": "crossing"}


@dataclass(frozen=True, slots=True)
class AnnounceQuery:
    """An announce, and the form of its answer. `claimed` is the packed address of an `ip=` parameter, if any;
    `advertised` are the endpoints of `address=` parameters, which p2pmodel sends."""

    announce: Announce
    compact: bool
    no_peer_id: bool
    claimed: bytes | None = None
    advertised: tuple[bytes, ...] = ()


def parse_announce(query: str) -> AnnounceQuery:
    """Parse the raw query string of an announce. Raises InvalidInput; its message is the failure reason."""
    fields = _fields(query)
    first = {name: values[0] for name, values in fields.items()}
    event = _EVENTS.get(first.get(b"event", b""), "")
    left = _number(first, b"left")
    announce = Announce(
        info_hash=_exactly(first, b"info_hash"),
        peer_id=_exactly(first, b"peer_id"),
        port=_port(first, event),
        left=left,
        event=event,
        numwant=_numwant(first),
        key=first.get(b"key", b"")[:_MAX_KEY],
        role=_ROLES.get(first.get(b"role", b""), ""),
        zone=_zone(first),
    )
    # Compact by default (BEP 23).
    return AnnounceQuery(
        announce,
        compact=first.get(b"compact") != b"0",
        no_peer_id=first.get(b"no_peer_id") == b"1",
        claimed=_claimed(first.get(b"ip", b"")),
        advertised=_advertised(fields.get(b"address", []), announce.port),
    )


def parse_scrape(query: str) -> tuple[bytes, ...]:
    """Info-hashes of a scrape, in order; empty: all swarms. Raises InvalidInput."""
    hashes = _fields(query).get(b"info_hash", [])
    if len(hashes) > MAX_SCRAPE:
        raise InvalidInput(f"at most {MAX_SCRAPE} info_hash in one scrape")
    if any(len(h) != _ID for h in hashes):
        raise InvalidInput("info_hash must be 20 bytes")
    return tuple(dict.fromkeys(hashes))


def announce_response(
    query: AnnounceQuery, answer: AnnounceAnswer, *, interval: int, min_interval: int, host: bytes, warning: str = ""
) -> bytes:
    """The answer to an announce; intervals in seconds, `host` is the client's packed address (BEP 24). `warning` is
    shown to its user."""
    plain: dict[bytes, Encodable] = {
        b"complete": answer.counts.seeders,
        b"downloaded": answer.counts.completed,
        b"external ip": host,
        b"incomplete": answer.counts.leechers,
        b"interval": interval,
        b"min interval": min_interval,
    }
    if query.compact:
        plain[b"peers"] = _compact(answer.peers, 6)
        if peers6 := _compact(answer.peers, 18):
            plain[b"peers6"] = peers6
    else:
        plain[b"peers"] = [_plain(p, e, query.no_peer_id) for p in answer.peers for e in p.endpoints]
    if warning:
        plain[b"warning message"] = warning.encode()
    return bencode.encode(plain)


def scrape_response(counts: Iterable[tuple[bytes, Counts]], *, min_interval: int) -> bytes:
    """The answer to a scrape (BEP 48); `min_interval` in seconds."""
    files = {
        info_hash: {b"complete": c.seeders, b"downloaded": c.completed, b"incomplete": c.leechers}
        for info_hash, c in counts
    }
    return bencode.encode({b"files": files, b"flags": {b"min_request_interval": min_interval}})


def failure_response(reason: str) -> bytes:
    """A refusal: a dictionary with this single key (BEP 3)."""
    return bencode.encode({b"failure reason": reason.encode()})


def pack_address(text: str) -> bytes:
    """A textual IP address as 4 or 16 bytes, an IPv4-mapped IPv6 address as 4. ValueError if it is none."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).packed


def endpoint_text(endpoint: bytes) -> str:
    """A packed address with its port as ADDRESS:PORT."""
    host, port = ipaddress.ip_address(endpoint[:-2]), int.from_bytes(endpoint[-2:], "big")
    return str(ListenAddress(str(host), port))


def _fields(query: str) -> dict[bytes, list[bytes]]:
    if len(query) > MAX_QUERY:
        raise InvalidInput(f"the query is longer than {MAX_QUERY} characters")
    try:
        # A server decodes bytes above 127 with surrogates: this restores the bytes.
        raw = query.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise InvalidInput("the query is not made of bytes") from None
    found: dict[bytes, list[bytes]] = {}
    for part in raw.split(b"&"):
        name, _, value = part.partition(b"=")
        found.setdefault(unquote_to_bytes(name), []).append(unquote_to_bytes(value))
    return found


def _exactly(fields: Mapping[bytes, bytes], name: bytes) -> bytes:
    value = fields.get(name, b"")
    if len(value) != _ID:
        raise InvalidInput(f"{name.decode()} must be 20 bytes")
    return value


def _number(fields: Mapping[bytes, bytes], name: bytes) -> int | None:
    value = fields.get(name)
    if value is None or value == b"":
        return None
    if not _NUMBER.fullmatch(value):
        raise InvalidInput(f"{name.decode()} must be a number")
    return int(value)


def _port(fields: Mapping[bytes, bytes], event: Event) -> int:
    port = _number(fields, b"port")
    if port == 0 and event == "stopped":
        return 0  # a client that leaves may have closed its port
    if port is None or not 0 < port <= 0xFFFF:
        raise InvalidInput("port must be 1 to 65535")
    return port


def _numwant(fields: Mapping[bytes, bytes]) -> int:
    wanted = _number(fields, b"numwant")
    return DEFAULT_NUMWANT if wanted is None or wanted < 0 else min(wanted, MAX_NUMWANT)


def _zone(fields: Mapping[bytes, bytes]) -> bytes:
    zone = fields.get(b"zone", b"")
    if len(zone) > MAX_ZONE:
        raise InvalidInput(f"zone must be at most {MAX_ZONE} bytes")
    return zone


def _claimed(value: bytes) -> bytes | None:
    try:
        return pack_address(value.decode("ascii"))
    except ValueError:
        return None  # BEP 3 allows a host name here; it is ignored


def _advertised(values: Iterable[bytes], port: int) -> tuple[bytes, ...]:
    found = []
    for value in values:
        try:
            address = AdvertisedAddress.parse(value.decode("ascii"))
            found.append(pack_address(address.host) + (address.port or port).to_bytes(2, "big"))
        except (InvalidInput, ValueError):
            raise InvalidInput("address must be an IP address that other machines reach, or ADDRESS:PORT") from None
    return tuple(dict.fromkeys(found))


def _compact(peers: Iterable[TrackedPeer], size: int) -> bytes:
    return b"".join(e for p in peers for e in p.endpoints if len(e) == size)


def _plain(peer: TrackedPeer, endpoint: bytes, no_peer_id: bool) -> dict[bytes, Encodable]:
    family = socket.AF_INET if len(endpoint) == 6 else socket.AF_INET6
    plain: dict[bytes, Encodable] = {
        b"ip": socket.inet_ntop(family, endpoint[:-2]).encode(),
        b"port": int.from_bytes(endpoint[-2:], "big"),
    }
    if not no_peer_id:
        plain[b"peer id"] = peer.peer_id
    return plain
