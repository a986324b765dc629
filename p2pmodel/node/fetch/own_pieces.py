"""The pieces of a download that this node has: staged, in blobs, or in other revisions."""

import asyncio

from p2pmodel.core import notes
from p2pmodel.core.sizes import human
from p2pmodel.node.fetch.plan import DownloadContext
from p2pmodel.node.reporter import stoppable
from p2pmodel.node.snapshot.inventory import Inventory, take_inventory


async def own_pieces(context: DownloadContext) -> Inventory:
    """Take the inventory in a thread, and note what comes from other revisions."""
    known = await context.known_pieces()
    with stoppable(context.stats.count_checked) as count:
        found = await asyncio.to_thread(
            take_inventory, context.repo, context.metainfo, known=known, wanted=context.plan.files, on_bytes=count
        )
    size = context.stats.size(found.reused)
    if size:
        text = f"{human(size)} are the same in other revisions of {context.repo.repo} in this cache: copied"
        context.reporter.note(notes.info("reused", text, bytes=size))
    return found
