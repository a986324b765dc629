"""The signatures of what this node publishes: by the key of the settings, and those that others have made of it."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from p2pmodel.coordinator.catalog_messages import MAX_OF_OWNER
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.publishing import PUBLISH_TIMEOUT
from p2pmodel.coordinator.client.signatures import find_signatures, publish_signature
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.errors import NotFound
from p2pmodel.swarm.metainfo import Metainfo
from p2pmodel.trust.signatures.signing_key import read_signing_key
from p2pmodel.trust.signatures.sshsig import parse_signature
from p2pmodel.trust.signatures.statement import NAMESPACE, SignedStatement, Statement
from p2pmodel.trust.signatures.wire import Malformed


async def signed(
    manifest: Manifest, info_hashes: Sequence[str], key: Path | None, *, clock: Callable[[], float] = time.time
) -> tuple[SignedStatement, ...]:
    """A signed statement for each torrent of `manifest`; "" stands for the files alone. None without a `key`.

    Raises InvalidInput for a key that cannot be used, LocalResource where an agent does not sign.
    """
    return () if key is None else await asyncio.to_thread(_signed, manifest, info_hashes, key, clock())


async def signed_once(
    metainfo: Metainfo, key: Path | None, known: Sequence[SignedStatement], *, clock: Callable[[], float] = time.time
) -> tuple[SignedStatement, ...]:
    """As `signed` for one torrent; none if `key` has signed one of the statements `known` over it."""
    return () if key is None else await asyncio.to_thread(_signed_once, metainfo, key, known, clock())


def publishable(
    statements: Sequence[SignedStatement], manifest: Manifest, info_hashes: Sequence[str]
) -> tuple[SignedStatement, ...]:
    """The `statements` over the torrents of `manifest`, or its files, that a coordinator accepts: as many as it
    keeps of one publisher. Blocks for a moment.

    Each is signed by its own key. Whether that key may sign, the clients of the coordinator decide.
    """
    return tuple(each for each in dict.fromkeys(statements) if _is_over(each, manifest, info_hashes))[:MAX_OF_OWNER]


def _is_over(candidate: SignedStatement, manifest: Manifest, info_hashes: Sequence[str]) -> bool:
    try:
        statement, signature = candidate.parsed(), parse_signature(candidate.signature)
    except Malformed:
        return False
    if not statement.repo.is_spelling_of(manifest.repo) or statement.commit != manifest.commit:
        return False
    sound = signature.namespace == NAMESPACE and signature.covers(candidate.statement.encode())
    return sound and statement.info_hash in ("", *info_hashes)


def _signed_once(
    metainfo: Metainfo, path: Path, known: Sequence[SignedStatement], now: float
) -> tuple[SignedStatement, ...]:
    key = read_signing_key(path)
    for each in known:
        with suppress(Malformed):
            same = each.parsed().info_hash == metainfo.info_hash
            if same and parse_signature(each.signature).key.fingerprint == key.public.fingerprint:
                return ()
    return (SignedStatement.by(key, Statement.over(metainfo.manifest, metainfo.info_hash, now)),)


def _signed(manifest: Manifest, info_hashes: Sequence[str], path: Path, now: float) -> tuple[SignedStatement, ...]:
    key = read_signing_key(path)
    return tuple(SignedStatement.by(key, Statement.over(manifest, each, now)) for each in info_hashes)


ASK_TIMEOUT = 5.0


class KeptSignatures:
    """The signatures of a torrent that this node publishes, for a coordinator that has lost them or never had them.

    `known` came with the torrent; others come from the coordinators that have them. A node that publishes the torrent
    alone would offer it unsigned, and nodes that require a signature would refuse it. None of them is trusted: each
    node verifies what it uses.
    """

    def __init__(self, metainfo: Metainfo, known: Sequence[SignedStatement] = ()) -> None:
        self._metainfo = metainfo
        self._known = tuple(known)

    async def known(self) -> tuple[SignedStatement, ...]:
        """The statements that are published with the torrent."""
        return await self._publishable(self._known)

    async def learn(self, coordinators: Sequence[Coordinator]) -> bool:
        """Take what `coordinators` have, and return whether that is anything."""
        manifest = self._metainfo.manifest
        found = await find_signatures(manifest.repo, manifest.commit, coordinators, ASK_TIMEOUT)
        self._known = await self._publishable((*self._known, *found))
        return bool(found)

    async def keep_at(self, coordinator: Coordinator) -> None:
        """Learn from `coordinator`, and publish what is known where it has nothing. Raises as `publish_signature`."""
        if await self.learn([coordinator]):
            return
        for signed in await self.known():
            try:
                await publish_signature(coordinator, signed, timeout=PUBLISH_TIMEOUT)
            except NotFound:  # it is of an earlier version
                return

    async def _publishable(self, statements: Sequence[SignedStatement]) -> tuple[SignedStatement, ...]:
        known = self._metainfo
        return await asyncio.to_thread(publishable, statements, known.manifest, [known.info_hash])
