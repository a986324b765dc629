"""The plan of a fetch: the bytes that it would move, file by file.

With a torrent every reused piece is checked against its hash; without one, samples of the tensors are compared.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.errors import P2PModelError
from p2pmodel.node.snapshot.inventory import recover
from p2pmodel.node.snapshot.reuse.presumed_ranges import FIND_SECONDS, LEAST, FileReuse
from p2pmodel.node.snapshot.reuse.reused_pieces import PieceReuse
from p2pmodel.node.snapshot.reuse.revisions import SHARD
from p2pmodel.node.snapshot.target import ResolvedTarget
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.parallel import Count, ignore
from p2pmodel.store.files.partial_file import recorded
from p2pmodel.swarm.torrents import Metainfo

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FilePlan:
    """One file of the new revision. Bytes: `before` of the file at this path in the previous revision, `size` of the
    new one; of these `adopted` (the whole content is in the cache), `resumed` (an unfinished download has them),
    `reused` (other revisions have them), and `download`."""

    path: str
    before: int
    size: int
    adopted: int = 0
    resumed: int = 0
    reused: int = 0
    changed: bool = True
    """Whether the previous revision has another content at this path, or none."""

    @property
    def download(self) -> int:
        """Bytes to download."""
        return self.size - self.adopted - self.resumed - self.reused


@dataclass(frozen=True, slots=True)
class UpdatePlan:
    """The files of `manifest` that are to be fetched. `previous`: the commit that is compared with, if there is one.
    `proved`: whether hashes of a torrent's pieces prove what is reused."""

    manifest: Manifest
    previous: str | None
    files: tuple[FilePlan, ...]
    proved: bool
    at_most: bool = False
    """Whether less may be downloaded: the headers of files could not be read."""

    def total(self, part: Callable[[FilePlan], int]) -> int:
        """The sum over all files."""
        return sum(map(part, self.files))

    @property
    def download(self) -> int:
        """Bytes to download."""
        return self.total(lambda file: file.download)

    @property
    def shown(self) -> tuple[FilePlan, ...]:
        """The files that differ from the previous revision, or are not whole here."""
        return tuple(file for file in self.files if file.changed or file.download or file.resumed or file.reused)


class Planner:
    """Plans the fetch of one resolved target. `origin` is asked for headers and samples of files of which older
    revisions may have parts; None: nothing may be asked."""

    def __init__(
        self, repo: RepoCache, target: ResolvedTarget, origin: Origin | None, on_bytes: Count = ignore
    ) -> None:
        self._repo = repo
        self._manifest = target.manifest
        self._metainfo = target.metainfo
        self._refs = target.refs
        self._origin = origin
        self._files = FileReuse(origin, repo, target.manifest, lambda _line: None) if origin else None
        self._pieces = PieceReuse(repo, target.metainfo) if target.metainfo else None
        self._on_bytes = on_bytes
        self._unseen = False
        """Whether the header of a file is needed, and could not be read."""

    async def plan(self, files: Sequence[ManifestFile]) -> UpdatePlan:
        """The plan for `files`. Reads the older revisions; writes nothing."""
        previous = await asyncio.to_thread(self._previous)
        lacking = {file.etag for file in await asyncio.to_thread(self._repo.lacking, files)}
        planned, seen = [], set[str]()
        for file in files:
            old = previous.file(file.path) if previous else None
            before, changed = (old.size, old.etag != file.etag) if old else (0, True)
            adopted, resumed, reused = file.size, 0, 0
            if file.etag in lacking and file.etag not in seen:
                adopted = 0
                resumed, reused = await self._measure(file)
            seen.add(file.etag)
            planned.append(FilePlan(file.path, before, file.size, adopted, resumed, reused, changed))
        commit = previous.commit if previous else None
        return UpdatePlan(
            self._manifest, commit, tuple(planned), proved=self._metainfo is not None, at_most=self._unseen
        )

    def _previous(self) -> Manifest | None:
        """The revision in the cache that the names of the target point at, else the most promising one."""
        refs = self._repo.refs()
        named = [refs[name] for name in (*self._refs, "main") if name in refs]
        others = [*named, *refs.values(), *self._repo.commits()]
        for commit in dict.fromkeys(others):
            found = self._repo.manifest(commit)
            if found is not None:
                return found
        return None

    async def _measure(self, file: ManifestFile) -> tuple[int, int]:
        """Bytes of `file` in unfinished downloads, and in older revisions."""
        staged = await asyncio.to_thread(self._repo.staged.readable_path, file)
        if self._metainfo is not None and self._pieces is not None:
            return await self._measure_pieces(self._metainfo, self._pieces, file, staged)
        written = await asyncio.to_thread(recorded, staged, file)
        resumed, reused = sum(end - start for start, end in written), 0
        if self._files is not None and file.size - resumed >= LEAST:
            found = await self._asked(self._files.find(file))
            reused = found.size if found else 0
        return resumed, min(reused, file.size - resumed)

    async def _measure_pieces(
        self, metainfo: Metainfo, pieces: PieceReuse, file: ManifestFile, staged: Path
    ) -> tuple[int, int]:
        span, layout = next(span for span in metainfo.layout.spans if span.path == file.path), metainfo.layout
        have = await asyncio.to_thread(recover, staged, span, metainfo, frozenset(), self._on_bytes)
        found = await asyncio.to_thread(pieces.measure, span, have, count=self._on_bytes)
        copied, parts = found.pieces, found.parts
        if len(have | copied) < span.piece_count and not found.saw_tensors:
            tensors = await self._asked(self._files.tensors(file)) if self._files else None
            if tensors:
                found = await asyncio.to_thread(pieces.measure, span, have, tensors, self._on_bytes, before=copied)
                copied, parts = found.pieces, found.parts
            elif file.path.endswith(SHARD) and pieces.revisions():
                self._unseen = True
        resumed = sum(layout.piece_range(piece).length for piece in have)
        return resumed, sum(layout.piece_range(piece).length for piece in copied) + parts

    async def _asked(self, question: Coroutine[Any, Any, T]) -> T | None:
        """The answer of the mirrors; None if they give none soon, and then they are not asked again."""
        try:
            async with asyncio.timeout(FIND_SECONDS):
                return await question
        except (P2PModelError, TimeoutError):
            self._files, self._unseen = None, True
            return None
