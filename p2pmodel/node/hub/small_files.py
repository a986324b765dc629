"""Small files that clients of a node's hub endpoint wait for, past the queue of the transfers.

A client reads `config.json` before anything else, and gives up after some tries. Behind whole models its transfer would
wait for hours. So a small file of a transfer that has not begun comes from the mirrors by itself; the transfer finds it
in the cache then. Where no mirror has it, it comes with its transfer.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from p2pmodel.core.progress.views import TransferView
from p2pmodel.core.tasks import Version
from p2pmodel.errors import P2PModelError
from p2pmodel.node.hub.shared_downloads import SharedDownload
from p2pmodel.node.snapshot.file_download import download_file
from p2pmodel.node.snapshot.lock import owning
from p2pmodel.origin.origin import Origin
from p2pmodel.store.files.space import check_space
from p2pmodel.store.publish import publish_blob

AT_ONCE = 4
"""Small files that are downloaded at a time, whatever else the node downloads."""
WITHIN = 20.0
"""Seconds for one file. What has come by then stays for its transfer."""
GRACE = 1.0
"""Seconds in which a running transfer begins to download, unless it waits for another one."""
POLL = 0.2


class SmallFiles:
    """Downloads small files from `origin`; None: no mirror may be asked. `version` grows with changes of transfers."""

    def __init__(self, origin: Origin | None, version: Version) -> None:
        self._origin = origin
        self._version = version
        self._places = asyncio.Semaphore(AT_ONCE)

    async def bring(self, shared: SharedDownload, view: Callable[[], TransferView | None]) -> None:
        """Download the file if its transfer, of which `view` returns the present state, does not do so soon. A failure
        is none: the transfer brings the file."""
        if self._origin is None or not await self._is_stuck(view):
            return
        with suppress(P2PModelError, TimeoutError):
            async with self._places, asyncio.timeout(WITHIN), owning(shared.repo, shared.file, patience=WITHIN):
                if await asyncio.to_thread(shared.repo.usable, shared.file) is None:
                    await self._pull(self._origin, shared)

    async def _pull(self, origin: Origin, shared: SharedDownload) -> None:
        repo, file = shared.repo, shared.file
        await asyncio.to_thread(check_space, repo.folder, file.size)
        await asyncio.to_thread(repo.staged.list, shared.manifest)
        path = await asyncio.to_thread(repo.staged.path_of, file)
        await download_file(
            origin, shared.manifest, shared.growing, path, publish=lambda: publish_blob(repo, file, path)
        )

    async def _is_stuck(self, view: Callable[[], TransferView | None]) -> bool:
        """Whether the transfer waits for others: in the queue, or for one that downloads the same contents."""
        began = time.monotonic()
        while (now := view()) is not None:
            if now.state == "queued":
                return True
            if now.state != "active" or now.progress.phase != "finding":
                return False
            if time.monotonic() - began >= GRACE:
                return True
            await self._version.beyond(self._version.value, timeout=POLL)
        return False
