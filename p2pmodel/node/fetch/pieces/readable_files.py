"""The files of one transfer that clients read while it runs."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path

from p2pmodel.core.content.layout import FileSpan
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.growing_file import GrowingFiles, GrowingFileWriter
from p2pmodel.swarm.torrents import Metainfo


class ReadableFiles:
    """Offers files of `metainfo` to readers. `durable()`: the pieces on disk; `request(piece)` is called while a reader
    waits for that piece, and returns whether it is missing."""

    def __init__(
        self,
        metainfo: Metainfo,
        repo: RepoCache,
        growing: GrowingFiles,
        *,
        durable: Callable[[], Collection[int]],
        request: Callable[[int], object],
    ) -> None:
        self._metainfo = metainfo
        self._repo = repo
        self._growing = growing
        self._durable = durable
        self._request = request
        self._writers: dict[int, GrowingFileWriter] = {}

    @contextmanager
    def written(self, files: Iterable[int], paths: Sequence[Path]) -> Iterator[None]:
        """Offer those `files` while the context lasts, each at its place in `paths`; of equal contents the first."""
        distinct: dict[str, int] = {}
        for index in sorted(files):
            distinct.setdefault(self._metainfo.manifest.files[index].etag, index)
        with ExitStack() as stack:
            self._writers = {index: stack.enter_context(self._written(index, paths)) for index in distinct.values()}
            yield

    def verified(self, index: int) -> None:
        """The hash of the whole file is right."""
        if index in self._writers:
            self._writers[index].verified()

    async def corrupt(self, index: int) -> None:
        """The hash of the whole file is wrong."""
        if index in self._writers:
            await self._writers[index].corrupt()

    async def corrupt_unverified(self) -> None:
        """The torrent is wrong: so may be every file that the hub's hash does not confirm."""
        for writer in self._writers.values():
            if not writer.is_verified:
                await writer.corrupt()

    def _written(self, index: int, paths: Sequence[Path]) -> AbstractContextManager[GrowingFileWriter]:
        span = self._metainfo.layout.spans[index]
        growing = self._growing.file(self._repo, self._metainfo.manifest.files[index])
        return growing.written(paths[index], partial(self._available, span), partial(self._request_at, span))

    def _available(self, span: FileSpan, offset: int) -> int:
        """The end of the durable pieces from `offset` on without a gap."""
        piece, durable = self._piece_at(span, offset), self._durable()
        while piece in durable and piece in span.pieces:
            piece += 1
        return min(span.size, (piece - span.first_piece) * self._metainfo.layout.piece_length)

    def _request_at(self, span: FileSpan, offset: int) -> object:
        return self._request(self._piece_at(span, offset))

    def _piece_at(self, span: FileSpan, offset: int) -> int:
        return span.first_piece + offset // self._metainfo.layout.piece_length
