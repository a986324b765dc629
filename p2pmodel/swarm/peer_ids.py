"""Peer ids: 20 bytes (BEP 3), the first eight for the program (BEP 20), written as 40 hex digits."""

import secrets

from p2pmodel import __version__

_PROGRAM = b"-PM"


def new_peer_id() -> str:
    """A random id for an engine that starts; printable, as a libtorrent setting must be."""
    version = "".join(part[:1] for part in f"{__version__}.0".split("."))[:4]
    return (_PROGRAM + f"{version:0<4}-{secrets.token_hex(6)}".encode()).hex()


def is_ours(peer_id: str) -> bool:
    """Whether the peer runs p2pmodel, which downloads missing pieces from mirrors."""
    return peer_id.startswith(_PROGRAM.hex())
