"""A torrent on this machine's disk: a .torrent with the signed statements beside it, or a bundle that has both."""

from pathlib import Path

from p2pmodel.errors import IntegrityError
from p2pmodel.store.bundles.archive import SUFFIX as BUNDLE
from p2pmodel.store.bundles.archive import open_bundle
from p2pmodel.swarm.torrents import read_torrent
from p2pmodel.trust.signatures.record import read_beside
from p2pmodel.trust.signatures.statement import SUFFIX, SignedStatement, read
from p2pmodel.trust.signatures.wire import Malformed


def read_torrent_file(path: Path) -> tuple[bytes, tuple[SignedStatement, ...]]:
    """The .torrent at `path`, or in the bundle there, and signed statements about it, unverified. Raises NotFound,
    InvalidInput, and IntegrityError for a damaged bundle. Blocks."""
    if path.suffix != BUNDLE:
        return read_torrent(path), read_beside(path.with_name(path.name + SUFFIX))
    with open_bundle(path) as bundle:
        return bundle.torrent, statements_in(bundle.signatures)


def statements_in(signatures: bytes) -> tuple[SignedStatement, ...]:
    """The signed statements in a bundle. Raises IntegrityError."""
    try:
        return read(signatures)
    except Malformed as error:
        raise IntegrityError(f"the signatures in the bundle cannot be used: {error}") from None
