"""What others may read of one transfer's files while they arrive."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from p2pmodel.core.layout import FileSpan
from p2pmodel.node.snapshot.file_windows import FileWindow, FileWindows, Key
from p2pmodel.store.cache import RepoCache
from p2pmodel.swarm.torrents import Metainfo


class TransferWindows:
    """Windows on the files of `metainfo`. `durable` are the pieces that are on disk; `waited_for(piece)` is told of
    those that somebody waits for."""

    def __init__(
        self,
        metainfo: Metainfo,
        repo: RepoCache,
        arriving: FileWindows,
        *,
        durable: Callable[[], Collection[int]],
        waited_for: Callable[[int], None],
    ) -> None:
        self._metainfo = metainfo
        self._repo = repo
        self._arriving = arriving
        self._durable = durable
        self._waited_for = waited_for
        self._windows: dict[Key, FileWindow] = {}

    @contextmanager
    def shown(self, files: Iterable[int], paths: Sequence[Path]) -> Iterator[None]:
        """Show those `files` while the context lasts, each at its place in `paths`."""
        self._windows = {self._key(index): self._window(self._metainfo.layout.spans[index], paths) for index in files}
        with self._arriving.shown(self._windows):
            yield

    def verified(self, index: int) -> None:
        """The hash of the whole file is right."""
        self._arriving.verified(self._key(index))

    async def damaged(self, index: int) -> None:
        """The hash of the whole file is wrong."""
        await self._arriving.wrong(self._repo, self._metainfo.manifest.files[index])

    async def doubted(self) -> None:
        """The torrent is wrong: whatever it has not vouched for by a hash may be, too."""
        unsure = {key for key, window in self._windows.items() if not window.verified}
        for file in self._metainfo.manifest.files:
            if (self._repo.repo, file.etag) in unsure:
                await self._arriving.wrong(self._repo, file)

    def _window(self, span: FileSpan, paths: Sequence[Path]) -> FileWindow:
        return FileWindow(paths[span.index], partial(self._available, span), partial(self._wait, span))

    def _available(self, span: FileSpan, offset: int) -> int:
        """Where the pieces end that are there without a gap from `offset` on."""
        piece, durable = self._piece_at(span, offset), self._durable()
        while piece in durable and piece in span.pieces:
            piece += 1
        return min(span.size, (piece - span.first_piece) * self._metainfo.layout.piece_length)

    def _wait(self, span: FileSpan, offset: int) -> None:
        self._waited_for(self._piece_at(span, offset))

    def _piece_at(self, span: FileSpan, offset: int) -> int:
        return span.first_piece + offset // self._metainfo.layout.piece_length

    def _key(self, index: int) -> Key:
        return self._repo.repo, self._metainfo.manifest.files[index].etag
