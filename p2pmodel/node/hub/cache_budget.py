"""The size limit of a pull-through mirror's cache, and the files in it that are being served."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from p2pmodel.core import notes
from p2pmodel.core.sizes import counted, human
from p2pmodel.node.reporter import Reporter
from p2pmodel.store.cache import BlobKey, HubCache
from p2pmodel.store.eviction import make_room


class CacheBudget:
    """At most `max_bytes` in `cache`; None: no limit."""

    def __init__(self, cache: HubCache, max_bytes: int | None, reporter: Reporter) -> None:
        self._cache = cache
        self._max_bytes = max_bytes
        self._reporter = reporter
        self._in_use: Counter[BlobKey] = Counter()
        self._turn = asyncio.Lock()

    @contextmanager
    def in_use(self, key: BlobKey) -> Iterator[None]:
        """The content of `key` is not evicted while the context lasts."""
        self._in_use[key] += 1
        try:
            yield
        finally:
            self._in_use[key] -= 1
            if not self._in_use[key]:
                del self._in_use[key]

    async def make(self, growing: Mapping[BlobKey, int]) -> None:
        """Evict the files served longest ago until all of `growing` (sizes by key) fits. Raises as `make_room`."""
        if self._max_bytes is None:
            return
        async with self._turn:
            gone = await asyncio.to_thread(
                make_room, self._cache, self._max_bytes, growing, lambda key: key in self._in_use
            )
        if gone:
            size = human(sum(size for _, _, size in gone))
            repos = ", ".join(sorted({str(repo) for repo, _, _ in gone}))
            self._reporter.note(
                notes.info(
                    "files_evicted",
                    f"evicted {counted(len(gone), 'file')} of {repos} ({size}), served longest ago",
                    files=len(gone),
                )
            )
