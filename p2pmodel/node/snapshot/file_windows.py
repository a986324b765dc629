"""Files on their way into this cache, for those who read them meanwhile: a client of the hub endpoint with a cache of
its own.

Whoever brings a file shows it here for as long as it does. Invariants, to re-check when editing:
1. Clients check nothing but the size, and the hub's hash can be checked only when all is here. So the last `HOLD_BACK`
   bytes are shown only after the hash of the whole was right, or once the file has its blob name.
2. What was shown may turn out wrong. The file is tainted first, then the window closes on all who looked through it.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from p2pmodel.core.layout import MIB
from p2pmodel.core.manifest import ManifestFile
from p2pmodel.core.names import RepoId
from p2pmodel.store.arrivals import taint
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.partial_file import PartialFile

HOLD_BACK = MIB

Key = tuple[RepoId, str]
"""A repository and the etag of a file of it."""


class FileWindow:
    """A view of the file at `path` while it arrives. `available(offset)`: where the bytes end that are there from
    `offset` on without a gap; `offset` or less if there are none. `waited_for(offset)` tells whoever brings the file
    that somebody waits for that byte."""

    def __init__(
        self, path: Path, available: Callable[[int], int], waited_for: Callable[[int], None] = lambda _: None
    ) -> None:
        self.path = path
        self.waited_for = waited_for
        self.verified = False
        """Whether the hash of the whole was right."""
        self.wrong = False
        """Whether some of what was shown is wrong."""
        self._available = available
        self._settled = asyncio.Event()

    def anew(self) -> "FileWindow":
        """The same for those who have not looked yet."""
        return FileWindow(self.path, self._available, self.waited_for)

    def settle(self, *, right: bool) -> None:
        """The hash of the whole is right, or some of what was shown is wrong."""
        self.verified, self.wrong = right, not right
        self._settled.set()

    async def settled(self, timeout: float) -> None:
        """Wait until it is known whether it is right or wrong, at most `timeout` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._settled.wait()

    def shown(self, offset: int, size: int) -> int:
        """Where what may be read from `offset` ends."""
        return size if self.verified else min(self._available(offset), size - HOLD_BACK)


class FileWindows:
    """The windows that are open."""

    def __init__(self) -> None:
        self._windows: dict[Key, FileWindow] = {}

    def window(self, key: Key) -> FileWindow | None:
        """The window on a file, if it is on its way."""
        return self._windows.get(key)

    @contextmanager
    def shown(self, windows: Mapping[Key, FileWindow]) -> Iterator[None]:
        """Show `windows` while the context lasts."""
        self._windows.update(windows)
        try:
            yield
        finally:
            for key in windows:
                self._windows.pop(key, None)

    def verified(self, key: Key) -> None:
        """The hash of the whole file is right."""
        if key in self._windows:
            self._windows[key].settle(right=True)

    async def wrong(self, repo: RepoCache, file: ManifestFile) -> None:
        """What was shown is wrong: nobody who saw some of it may see the rest. Who comes now looks at what is left."""
        key = repo.repo, file.etag
        window = self._windows.get(key)
        if window is not None:
            await asyncio.to_thread(taint, repo, file)  # before a client that is cut off can come back
            window.settle(right=False)
            self._windows[key] = window.anew()


class WindowedFile:
    """A partial file and its window; satisfies origin's RangeSink."""

    def __init__(self, partial: PartialFile, arriving: FileWindows, repo: RepoCache, file: ManifestFile) -> None:
        self.size = partial.size
        self._partial = partial
        self._arriving = arriving
        self._repo = repo
        self._file = file

    def missing(self) -> list[tuple[int, int]]:
        """As `RangeSink`, like all that follows."""
        return self._partial.missing()

    async def write(self, offset: int, data: bytes) -> None:
        await self._partial.write(offset, data)

    async def digest(self) -> str:
        return await self._partial.digest()

    async def read(self, offset: int, length: int) -> bytes:
        return await self._partial.read(offset, length)

    async def forget(self, offset: int, length: int) -> None:
        await self._arriving.wrong(self._repo, self._file)
        await self._partial.forget(offset, length)

    async def discard(self) -> None:
        await self._arriving.wrong(self._repo, self._file)
        await self._partial.discard()
