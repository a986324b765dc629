"""Hold back the end of a forwarded file until its hash is verified: clients check the size only."""

import hashlib

from p2pmodel.core.manifest import git_blob_hasher
from p2pmodel.errors import WrongBytes

HOLD_BACK = 16 << 10
"""Bytes; few, so that a client behind a slow mirror does not wait long for them."""


class TailCheck:
    """Check of one file of `size` bytes, taken in order. `etag`: the hub's hash, a sha256 or a git blob id."""

    def __init__(self, etag: str, size: int) -> None:
        self._etag = etag
        self._hash = hashlib.sha256() if len(etag) == 64 else git_blob_hasher(size)
        self._held = b""

    def take(self, block: bytes) -> bytes:
        """Add `block`; the bytes that may be sent now."""
        self._hash.update(block)
        held = self._held + block
        cut = max(0, len(held) - HOLD_BACK)
        self._held = held[cut:]
        return held[:cut]

    def rest(self, source: str, path: str) -> bytes:
        """The end of the file, after all bytes. Raises WrongBytes, naming `source` and `path`."""
        got = self._hash.hexdigest()
        if got != self._etag:
            raise WrongBytes(source, path, f"hash {self._etag}", f"hash {got}")
        return self._held
