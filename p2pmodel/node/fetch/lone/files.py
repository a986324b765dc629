"""Large files from the seeders over HTTP, several at a time, by a node that has no others to share with.

The hub's hash of the whole file replaces the checks of its pieces here, so each byte is hashed once, in the thread that
receives it; a thread for each file uses several cores. What is not whole when this ends is left to the swarm.

Invariants, to re-check when editing:
1. Nothing of an unfinished file is served or counted as verified: the node joins the swarm afterwards, with what
   passes the checks of an inventory.
2. It ends as soon as others have come, unless the rest takes less time than their start; or a client of this node reads
   one of the files, which come here in an order of their own.
3. It never fails: what a seeder or the disk refuses is tried again in the swarm, which says why.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from p2pmodel.core.content.layout import MIB
from p2pmodel.core.tasks import companions, together
from p2pmodel.errors import P2PModelError
from p2pmodel.node.fetch.lone.file import FileSource, LoneFile
from p2pmodel.node.fetch.pieces.readable_files import ReadableFiles
from p2pmodel.node.fetch.pieces.seeders import Seeders
from p2pmodel.node.fetch.plan import DownloadContext
from p2pmodel.node.snapshot.inventory import Inventory
from p2pmodel.store.files.disk import sync
from p2pmodel.store.publish import publish_blob
from p2pmodel.store.verify import SYNC_EVERY

LARGE = 16 * MIB
"""Bytes; of smaller files many are published at a time, which the swarm does."""
LEAST = 128 * MIB
"""Bytes of large files that are worth it."""
MOST_AT_ONCE = 8
"""Files; one takes about a core."""
LOOK_EVERY = 0.05
STUCK_FOR = 10.0
"""Seconds without a counted byte after which a seeder is left: a trickle is silence."""
SYNC_SOME, SYNC_SECONDS = 16 * MIB, 2.0
"""Bytes, and seconds since the last sync, after which a file is synced, too: several files end at once."""
ALMOST_DONE = 2.0
"""Seconds that the rest may take for it to go on although others have come: as long as it takes to join them."""


class LoneFiles:
    """Downloads the large files that `inventory` lacks from `sources`. `run` it once.

    `peers` returns how many nodes download, this one included.
    """

    def __init__(
        self,
        context: DownloadContext,
        inventory: Inventory,
        seeders: Seeders,
        sources: Sequence[FileSource],
        *,
        peers: Callable[[], int],
    ) -> None:
        self._context = context
        self._inventory = inventory
        self._seeders = seeders
        self._sources = sources
        self._peers = peers
        self._waiting = deque(sorted(fitting_files(context, inventory), key=lambda each: -each.file.size))
        self._active: dict[LoneFile, _Seen] = {}
        self._left = sum(each.file.size - each.received for each in self._waiting)
        self._received = 0
        self._began = 0.0
        self._ended = False
        self._readable = ReadableFiles(
            context.metainfo,
            context.repo,
            context.growing,
            durable=lambda: inventory.have,
            request=self._read_by_a_client,
        )

    @property
    def worth_it(self) -> bool:
        """Whether this is the way to begin with, and there is enough to download in it."""
        return bool(self._sources) and self._left >= LEAST and not self._limited

    async def run(self) -> None:
        """Download and publish files until all are there, or another way is the better one."""
        files = [each.index for each in self._waiting]
        at_once = min(MOST_AT_ONCE, len(os.sched_getaffinity(0)), len(files))
        self._began = time.monotonic()
        # Threads of its own: on a slow link they are busy for hours, and others wait for those of the event loop.
        with (
            ThreadPoolExecutor(at_once, thread_name_prefix="p2pmodel-file") as threads,
            self._readable.written(files, self._inventory.paths),
        ):
            async with companions() as start:
                start(self._watch())
                start(self._sync())
                await together(self._work(threads) for _ in range(at_once))

    async def _work(self, threads: ThreadPoolExecutor) -> None:
        while self._waiting and not self._ended:
            each = self._waiting.popleft()
            self._active[each] = _Seen(each.received)
            if await self._download(each, threads):
                self._context.stats.verified.add(each.index)
                self._readable.verified(each.index)
            elif not self._ended:
                self._end()
            self._count(each, self._active.pop(each))

    async def _download(self, each: LoneFile, threads: ThreadPoolExecutor) -> bool:
        """Whether it is among the blobs now."""
        task = asyncio.get_running_loop().run_in_executor(threads, self._bring, each)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            each.stop()
            await asyncio.gather(task, return_exceptions=True)
            raise
        except P2PModelError:
            return False

    def _bring(self, each: LoneFile) -> bool:
        turn = each.index % len(self._sources)
        if not each.run([*self._sources[turn:], *self._sources[:turn]]):
            return False
        publish_blob(self._context.repo, each.file, each.path)
        return True

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            now = time.monotonic()
            for each, seen in self._active.items():
                if self._count(each, seen) or not each.asks:
                    seen.at = now
                elif now - seen.at > STUCK_FOR:
                    seen.at = now
                    each.disconnect()
            if not self._ended and not self._goes_on(now):
                self._end()

    async def _sync(self) -> None:
        """Write what was received to the disk meanwhile, so that little is left to sync at the end of each file."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            for each, seen in list(self._active.items()):
                unsynced, now = each.received - seen.synced, time.monotonic()
                if unsynced >= SYNC_EVERY or (unsynced >= SYNC_SOME and now - seen.synced_at >= SYNC_SECONDS):
                    seen.synced, seen.synced_at = each.received, now
                    await asyncio.to_thread(_sync_if_there, each)

    def _goes_on(self, now: float) -> bool:
        if self._limited:
            return False
        return self._peers() <= 1 or self._left * (now - self._began) <= ALMOST_DONE * self._received

    @property
    def _limited(self) -> bool:
        """Whether there is a download limit, which threads do not obey."""
        return self._context.plan.pace is not None and bool(self._context.plan.pace.limit)

    def _end(self) -> None:
        self._ended = True
        for each in self._active:
            each.stop()

    def _read_by_a_client(self, piece: int) -> bool:
        """Whether it is missing."""
        index = self._context.metainfo.layout.span_of(piece).index
        if piece in self._inventory.have or index in self._context.stats.verified:
            return False
        self._end()
        return True

    def _count(self, each: LoneFile, seen: "_Seen") -> int:
        """Count what came since the last time; how many bytes."""
        received, stats, layout = each.received, self._context.stats, self._context.metainfo.layout
        count = received - seen.received
        if count:
            span, length = layout.spans[each.index], layout.piece_length
            end = span.piece_count if received == span.size else received // length
            for piece in span.pieces[seen.received // length : end]:
                if piece in stats.missing:
                    stats.arrived(piece, "seeders")
            self._seeders.count_file_bytes(each.source, count)
            self._received += count
            self._left -= count
            seen.received = received
        return count


class _Seen:
    """What was seen of a file: bytes `received`, the last growth `at`, bytes `synced`, the last time `synced_at`."""

    def __init__(self, received: int) -> None:
        self.received = received
        self.at = time.monotonic()
        self.synced, self.synced_at = received, self.at


def fitting_files(context: DownloadContext, inventory: Inventory) -> list[LoneFile]:
    """Large files of which only the beginning is here, or nothing; of equal contents the first one. Without those that
    proved damaged, or that a copy from the mirrors was made of."""
    plan, manifest, layout = context.plan, context.metainfo.manifest, context.metainfo.layout
    found: dict[str, LoneFile] = {}
    for index in sorted(plan.files - inventory.complete - plan.judged - context.damage.keys()):
        file, span = manifest.files[index], layout.spans[index]
        here = sum(piece in inventory.have for piece in span.pieces)
        is_prefix = inventory.have.issuperset(span.pieces[:here])
        if file.size >= LARGE and here < span.piece_count and is_prefix and file.etag not in found:
            path, offset = inventory.paths[index], here * layout.piece_length
            found[file.etag] = LoneFile(index, file, path, offset, manifest.hub_path(file.path))
    return list(found.values())


def _sync_if_there(each: LoneFile) -> None:
    """Sync the staged file, unless it was published meanwhile."""
    try:
        sync(each.path)
    except OSError:  # the swarm reports a failing disk
        return
