"""Peer ids: 20 bytes (BEP 3), the first eight for the program (BEP 20), written as 40 hex digits.

A node with several engines is several peers. Their ids differ only at the end, which says which engine of how many it
is: `E14` for number 1 of 4. So trackers and peers count them as one node.
"""

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import gcd

from p2pmodel import __version__
from p2pmodel.core.network.connections import PeerConnection

MOST_ENGINES = 8
"""Most engines of one node."""
_PROGRAM = b"-PM"
_SEVERAL = re.compile(rb"(-PM.{4}-[0-9a-f]{9})E([0-7])([2-8])", re.DOTALL)


@dataclass(frozen=True, slots=True)
class EngineNumber:
    """Which of the engines of a node a peer is; the piece with index p belongs to number p modulo `count`."""

    number: int = 0
    count: int = 1

    def has_use_for(self, other: "EngineNumber") -> bool:
        """Whether some piece belongs to both, where the two are of different nodes."""
        return (self.number - other.number) % gcd(self.count, other.count) == 0


ONLY_ENGINE = EngineNumber()
"""That of a peer with one engine."""


def new_peer_id() -> str:
    """A random id for an engine that starts; printable, as a libtorrent setting must be."""
    return (_program() + secrets.token_hex(6).encode()).hex()


def peer_ids_of_node(count: int) -> list[str]:
    """Random ids for the `count` engines of a node that start together."""
    if count == 1:
        return [new_peer_id()]
    shared = _program() + secrets.token_hex(5)[:9].encode()
    return [(shared + f"E{number}{count}".encode()).hex() for number in range(count)]


def is_ours(peer_id: str) -> bool:
    """Whether the peer runs p2pmodel, which downloads missing pieces from mirrors."""
    return peer_id.startswith(_PROGRAM.hex())


def engine_number(peer_id: bytes) -> EngineNumber:
    """Which engine of its node the peer is."""
    found = _SEVERAL.fullmatch(peer_id)
    if found is None or int(found[2]) >= int(found[3]):
        return ONLY_ENGINE
    return EngineNumber(int(found[2]), int(found[3]))


def node_of(peer_id: bytes) -> bytes:
    """The id of the first engine of the peer's node: of a node with one engine its only one."""
    if engine_number(peer_id).count == 1:
        return peer_id
    return peer_id[:-2] + b"0" + peer_id[-1:]


def by_node(connections: Iterable[PeerConnection]) -> tuple[PeerConnection, ...]:
    """The connections with each node as one, at its first engine: of its engines each has a part, or all."""
    nodes: dict[str, list[PeerConnection]] = {}
    for each in connections:
        nodes.setdefault(_node_of(each) or each.address, []).append(each)
    return tuple(map(_together, nodes.values()))


def _node_of(connection: PeerConnection) -> str:
    return node_of(bytes.fromhex(connection.peer_id)).hex()


def _together(connections: list[PeerConnection]) -> PeerConnection:
    parts: dict[str, float] = {}
    for each in connections:
        parts[each.peer_id] = max(parts.get(each.peer_id, 0.0), each.progress)
    return replace(
        min(connections, key=lambda each: each.peer_id),
        peer_id=_node_of(connections[0]),
        progress=min(1.0, sum(parts.values())),
        download_rate=sum(each.download_rate for each in connections),
        upload_rate=sum(each.upload_rate for each in connections),
        downloaded=sum(each.downloaded for each in connections),
        uploaded=sum(each.uploaded for each in connections),
        flags="".join(dict.fromkeys(letter for each in connections for letter in each.flags)),
    )


def _program() -> bytes:
    version = "".join(part[:1] for part in f"{__version__}.0".split("."))[:4]
    return _PROGRAM + f"{version:0<4}-".encode()
