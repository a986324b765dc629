"""Messages about leases between a peer and its coordinator, as JSON text.

A peer sends its `Demand` whenever it changes, and once a heartbeat, or every few as the coordinator says. The
coordinator sends a `CoordinatorMessage` whenever that changes. Both are whole states, not differences: a lost or late
message does no harm.
"""

import base64
import binascii
import json
import re
from dataclasses import dataclass, fields
from typing import Any

from p2pmodel.coordinator.leases.demand import Complaint, Crossing, Demand, Grant
from p2pmodel.coordinator.rollout.messages import report_plain
from p2pmodel.coordinator.rollout.nodes import NodeReport
from p2pmodel.coordinator.tracker.sources import Source
from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import InvalidInput

NO_UPGRADE = "the request has no upgrade to a WebSocket"
NGINX_UPGRADE = (
    'proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; '
    "proxy_read_timeout 1h;"
)
"""What lets nginx pass on the WebSocket of a peer."""
HEARTBEAT = 1.0
"""Seconds of a heartbeat."""
MOST_HEARTBEATS = 3
"""Most heartbeats between two messages of a peer: one without a message for five seconds counts as gone."""
MOST_COMPLAINTS = 16
"""Complaints in one message; further ones are ignored."""
MOST_UNREACHABLE = 16
"""Addresses of unreachable nodes in one message; further ones are ignored."""
MAX_MESSAGE = 1 << 21
"""Bytes of the longest message: a bitfield of 2 million pieces is 350 kB of base64, and a demand has three."""

_INFO_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class CoordinatorMessage:
    """A coordinator's message to one peer: its grant, and the seeders.

    `late`: other peers came before and have pieces, so this peer connects to them before it uses its grant.
    `lost_source`: a seeder has just gone, and may come back. `heartbeats`: after so many a peer without news sends its
    state again. In an assembly, `assembled` is the torrent's info-hash once it exists, `left` the number of pieces
    without a root, and `partial_torrents` the info-hashes of the partial torrents.
    """

    grant: Grant
    sources: tuple[Source, ...] = ()
    late: bool = False
    assembled: str = ""
    left: int = 0
    partial_torrents: tuple[str, ...] = ()
    lost_source: bool = False
    heartbeats: int = 1


_MESSAGE, _GRANT, _CROSSING, _SOURCE, _DEMAND, _COMPLAINT = (
    tuple(field.name for field in fields(kind))
    for kind in (CoordinatorMessage, Grant, Crossing, Source, Demand, Complaint)
)


def lease_path(info_hash: str) -> str:
    """Path of a swarm's leases below a coordinator's base URL."""
    return f"/leases/{info_hash}"


def demand_text(demand: Demand, piece_count: int, report: NodeReport | None = None) -> str:
    """`demand` as a message; `report`: the state of the node, for roll-outs."""
    return json.dumps(plain_demand(demand, piece_count, report), separators=(",", ":"))


def plain_demand(demand: Demand, piece_count: int, report: NodeReport | None = None) -> dict[str, Any]:
    """`demand` and `report` as values for JSON."""
    plain = _plain(demand, _DEMAND)
    plain["complaints"] = [_plain(each, _COMPLAINT) for each in demand.complaints]
    for name in ("scarce", "leased", "held"):
        field = plain[name].to_bytes(-(-piece_count // 8), "little")
        plain[name] = base64.b64encode(field).decode()
    return plain if report is None else plain | {"report": report_plain(report)}


def parse_demand(text: str) -> Demand:
    """The reverse of `demand_text`. Raises InvalidInput."""
    return demand_of(object_of(text))


def demand_of(plain: dict[str, Any]) -> Demand:
    """The reverse of `plain_demand`. Raises InvalidInput."""
    try:
        return Demand(
            scarce=_bits(plain["scarce"]),
            from_seeders=bool(plain["from_seeders"]),
            want=_count(plain["want"]),
            origin_bytes=_count(plain["origin_bytes"]),
            leased=_bits(plain.get("leased", "")),
            complaints=tuple(Complaint(_count(c["piece"]), str(c["peer"])) for c in plain.get("complaints", ()))[
                -MOST_COMPLAINTS:
            ],
            cut_off=bool(plain.get("cut_off", False)),
            held=_bits(plain.get("held", "")),
            token=str(plain.get("token", "")),
            unreachable=tuple(map(str, plain.get("unreachable", ())))[-MOST_UNREACHABLE:],
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"the message is not a peer's demand: {error!r}") from None


def message_text(message: CoordinatorMessage) -> str:
    """`message` as JSON text."""
    plain, grant = _plain(message, _MESSAGE), _plain(message.grant, _GRANT)
    if message.grant.crossings:
        grant["crossings"] = [_plain(each, _CROSSING) for each in message.grant.crossings]
    sources = [_plain(each, _SOURCE) for each in message.sources]
    return json.dumps(plain | {"grant": grant, "sources": sources}, separators=(",", ":"))


def parse_message(text: str) -> CoordinatorMessage:
    """The reverse of `message_text`. Raises InvalidInput."""
    plain = object_of(text)
    try:
        grant = plain["grant"]
        return CoordinatorMessage(
            Grant(
                pieces=tuple(map(_count, grant["pieces"])),
                peers=_count(grant["peers"]),
                origin_bytes=_count(grant["origin_bytes"]),
                refused=bool(grant["refused"]),
                crossings=_crossings(grant.get("crossings")),
            ),
            tuple(Source(*(str(s[name]) for name in _SOURCE)) for s in plain["sources"]),
            late=bool(plain["late"]),
            assembled=_info_hash(plain["assembled"]) if plain.get("assembled") else "",
            left=_count(plain.get("left", 0)),
            partial_torrents=tuple(map(_info_hash, plain.get("partial_torrents", ()))),
            lost_source=bool(plain.get("lost_source", False)),
            heartbeats=min(max(_count(plain.get("heartbeats", 1)), 1), MOST_HEARTBEATS),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"the message holds no grant: {error!r}") from None


def object_of(text: str) -> dict[str, Any]:
    """Parse `text` as a JSON object. Raises InvalidInput."""
    try:
        plain = parse_json(text)
    except ValueError:
        plain = None
    if not isinstance(plain, dict):
        raise InvalidInput("the message is not a JSON object")
    return plain


def _plain(value: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """The fields `names` of `value`. `asdict` takes five times as long: it copies each field."""
    return {name: getattr(value, name) for name in names}


def _crossings(plain: Any) -> tuple[Crossing, ...] | None:
    if plain is None:
        return None
    return tuple(Crossing(_count(c["piece"]), str(c["address"]), str(c["token"])) for c in plain)


def _bits(text: str) -> int:
    try:
        return int.from_bytes(binascii.a2b_base64(text, strict_mode=True), "little")
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def _info_hash(value: Any) -> str:
    if not isinstance(value, str) or not _INFO_HASH.fullmatch(value):
        raise ValueError(f"{value!r} is not an info-hash")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        raise ValueError(f"{value!r} is not a count")
    return value
