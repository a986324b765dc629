"""Signing what this node publishes, with the key of the settings."""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from p2pmodel.core.content.manifest import Manifest
from p2pmodel.trust.signatures.signing_key import read_signing_key
from p2pmodel.trust.signatures.statement import SignedStatement, Statement


async def signed(
    manifest: Manifest, info_hashes: Sequence[str], key: Path | None, *, clock: Callable[[], float] = time.time
) -> tuple[SignedStatement, ...]:
    """A signed statement for each torrent of `manifest`; "" stands for the files alone. None without a `key`.

    Raises InvalidInput for a key that cannot be used, LocalResource where an agent does not sign.
    """
    return () if key is None else await asyncio.to_thread(_signed, manifest, info_hashes, key, clock())


def _signed(manifest: Manifest, info_hashes: Sequence[str], path: Path, now: float) -> tuple[SignedStatement, ...]:
    key = read_signing_key(path)
    return tuple(SignedStatement.by(key, Statement.over(manifest, each, now)) for each in info_hashes)
