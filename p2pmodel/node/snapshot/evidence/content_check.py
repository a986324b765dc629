"""The policy on contents before a download: file names at once, the licence as soon as the model card is here.

`publish_snapshot` applies the policy again, to what becomes visible.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.errors import P2PModelError
from p2pmodel.node.snapshot.file_download import download_file
from p2pmodel.node.snapshot.lock import owning
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.space import check_space
from p2pmodel.store.growing_file import GrowingFiles
from p2pmodel.store.publish import publish_blob
from p2pmodel.trust.content_policy import CARD, ContentPolicy

CARD_WITHIN = 20.0
"""Seconds for the model card; later it comes with the other files."""


async def check_contents(
    policy: ContentPolicy,
    repo: RepoCache,
    manifest: Manifest,
    files: Sequence[ManifestFile],
    *,
    origin: Origin | None,
    growing: GrowingFiles | None = None,
) -> None:
    """Raise RefusedContent for a snapshot of which `files` shall be downloaded, before any other file of it moves.

    The card comes from `origin`. If it cannot be had there, the licence is checked when the snapshot is published.
    """
    policy.check_files(manifest.repo, (file.path for file in files))
    if not policy.needs_card(manifest.repo):
        return
    card = manifest.file(CARD)
    if card is None:
        policy.check_card(manifest.repo, None)
        return
    if await asyncio.to_thread(repo.usable, card) is None and origin is not None:
        with suppress(P2PModelError, TimeoutError):
            async with asyncio.timeout(CARD_WITHIN):
                await _bring(repo, manifest, card, origin, growing or GrowingFiles())
    found = await asyncio.to_thread(repo.usable, card)
    if found is not None:
        policy.check_card(manifest.repo, await asyncio.to_thread(found.read_bytes))


async def _bring(
    repo: RepoCache, manifest: Manifest, card: ManifestFile, origin: Origin, growing: GrowingFiles
) -> None:
    async with owning(repo, card, patience=CARD_WITHIN):
        await asyncio.to_thread(check_space, repo.folder, card.size)
        await asyncio.to_thread(repo.staged.list, manifest)
        path = await asyncio.to_thread(repo.staged.path_of, card)
        file = growing.file(repo, card)
        await download_file(origin, manifest, file, path, publish=lambda: publish_blob(repo, card, path))
