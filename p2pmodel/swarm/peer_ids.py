"""What peers are called in a swarm: 20 bytes (BEP 3), of which the first eight name the program (BEP 20); here as 40
hex digits."""

import secrets

from p2pmodel import __version__

_PROGRAM = b"-PM"


def new_peer_id() -> str:
    """One for an engine that starts: another each time, and printable, as libtorrent takes it as a setting."""
    version = "".join(part[:1] for part in f"{__version__}.0".split("."))[:4]
    return (_PROGRAM + f"{version:0<4}-{secrets.token_hex(6)}".encode()).hex()


def is_ours(peer_id: str) -> bool:
    """Whether it is a p2pmodel's, which asks mirrors for what its peers lack."""
    return peer_id.startswith(_PROGRAM.hex())
