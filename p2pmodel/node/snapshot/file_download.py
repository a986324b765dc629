"""One file from the mirrors: download, verify, record and publish it, while clients already read it."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from p2pmodel.core.content.layout import piece_length_for
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.merkle import FileTree
from p2pmodel.core.tasks import in_the_end, in_thread
from p2pmodel.node.snapshot.reuse.presumed_ranges import FileReuse
from p2pmodel.origin.origin import Origin
from p2pmodel.store.files.parallel import Count, ignore
from p2pmodel.store.files.partial_file import PartialFile
from p2pmodel.store.growing_file import GrowingFile, GrowingFileSink
from p2pmodel.store.state.sync_log import SyncLog


async def download_file(
    origin: Origin,
    manifest: Manifest,
    growing: GrowingFile,
    path: Path,
    *,
    publish: Callable[[], object],
    log: SyncLog | None = None,
    reuse: FileReuse | None = None,
    on_resume: Count = ignore,
    on_bytes: Count = ignore,
) -> FileTree | None:
    """Download the file of `growing` into `path`, verify it, record it in `log`, and call `publish` in a thread.

    `reuse` finds bytes in older revisions. `on_resume` gets those and the bytes that an earlier run left in `path`,
    `on_bytes` the bytes of each write. Returns the Merkle tree; None for an empty file. Raises as `Origin.pull`;
    downloaded bytes then stay for the next run.
    """
    file, length = growing.file, piece_length_for(manifest.total_size)
    opened = in_thread(lambda: PartialFile.open(path, file, length), PartialFile.close)
    with ExitStack() as stack:
        async with await opened as partial:
            writer = stack.enter_context(growing.written(path, partial.available))
            copied, sent = await reuse.fill(file, partial) if reuse else (0, 0)
            on_resume(file.size - sum(size for _, size in partial.missing()) - sent)
            on_bytes(sent)
            sources = await origin.pull(manifest, file, GrowingFileSink(partial, writer), on_bytes=on_bytes)
            writer.verified()
            if reuse is not None and partial.presumed < copied:
                reuse.refuted(file)
            if log is not None:
                await asyncio.to_thread(log.record, manifest, file, path, sources, origin.voucher(manifest))
            tree = await asyncio.to_thread(lambda: partial.tree)
        # A thread cannot be cancelled: the next step, which looks at the files, must not begin before its end.
        await in_the_end(_in_a_thread(publish))
    return tree


async def _in_a_thread(publish: Callable[[], object]) -> None:
    await asyncio.to_thread(publish)
