"""One verified copy from the mirrors: download missing files, hash them in the same pass, publish them."""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from p2pmodel.core.content.layout import MIB
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.merkle import FileTree
from p2pmodel.core.pace import Rate
from p2pmodel.core.sizes import counted
from p2pmodel.core.tasks import companions, together
from p2pmodel.errors import Unavailable
from p2pmodel.node.reporter import FileProgress, Phase, Progress, Reporter, stoppable
from p2pmodel.node.snapshot.file_download import download_file
from p2pmodel.node.snapshot.inventory import adopt
from p2pmodel.node.snapshot.reuse.presumed_ranges import FileReuse
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.space import allocated
from p2pmodel.store.growing_file import GrowingFiles
from p2pmodel.store.publish import check_publish_space, publish_blob, publish_snapshot
from p2pmodel.store.state.sync_log import SyncLog

FILES_AT_ONCE = 4
REPORT_EVERY = 0.2
SMALL = MIB
"""Bytes up to which a file takes one request."""


@dataclass(frozen=True, slots=True)
class MirrorCopyResult:
    """Bytes by source. `trees` has the Merkle tree of every file downloaded now, not of adopted ones."""

    trees: dict[str, FileTree]
    from_cache: int
    from_mirrors: int


class MirrorCopy:
    """Copies files of `manifest` into the cache from the mirrors alone; without `origin` no mirror may be asked.

    `log` gets a record of every downloaded file before that file becomes visible; through `growing` clients read the
    files meanwhile. Of the staged bytes, in this run `pulled_before` came from mirrors, `exchanged_before` from peers.
    """

    def __init__(
        self,
        origin: Origin | None,
        repo: RepoCache,
        manifest: Manifest,
        reporter: Reporter,
        *,
        log: SyncLog | None = None,
        pulled_before: int = 0,
        exchanged_before: int = 0,
        growing: GrowingFiles | None = None,
    ) -> None:
        self._log = log
        self._pulled_before = pulled_before
        self._exchanged_before = exchanged_before
        self._growing = growing or GrowingFiles()
        self._origin = origin
        self._repo = repo
        self._manifest = manifest
        self._reporter = reporter
        self._chosen: Sequence[ManifestFile] = ()
        """The files that become visible."""
        self._repo.places.plain.know(manifest)
        self._reuse = FileReuse(origin, repo, manifest, reporter.note) if origin else None
        self._trees: dict[str, FileTree] = {}
        self._phase: Phase = "checking"
        self._total = 0
        self._needed = 0
        self._checked = 0
        self._cached = 0
        self._resumed = 0
        self._pulled = 0
        self._shared = 0
        """Bytes of files with the content of another file."""
        self._sharing: defaultdict[str, list[str]] = defaultdict(list)
        """By etag, the paths of absent files."""
        self._rate = Rate()
        self._held: Counter[str] = Counter()
        """By etag, the bytes that are here of absent files."""
        self._verified: set[str] = set()
        """Etags of files that are in the cache."""

    async def run(self, files: Sequence[ManifestFile], refs: Sequence[str]) -> MirrorCopyResult:
        """Download, verify and publish `files`, then the snapshot, then `refs`. A failure keeps downloaded bytes."""
        self._total = sum(file.size for file in files)
        self._chosen = files
        self._reporter.files(self._file_progress)
        async with companions() as start:
            start(self._report())
            absent = await self._adopt(files)
            if absent and self._origin is None:
                raise Unavailable(
                    f"this cache lacks {counted(len(absent), 'file')} of {self._manifest.repo}; no mirror may be asked",
                    hint="unset HF_HUB_OFFLINE",
                )
            if absent:
                await asyncio.to_thread(self._repo.require_writable)
            self._needed = sum(file.size for file in absent)
            self._enter("mirroring" if self._needed else "verifying")
            await self._pull_all(absent)
        self._enter("publishing")
        await asyncio.to_thread(publish_snapshot, self._repo, self._manifest, files, refs)
        self._enter("done")
        return MirrorCopyResult(self._trees, self._cached, self._pulled)

    async def bring(self, file: ManifestFile) -> FileTree | None:
        """Download, verify and publish the blob of `file` alone, without the snapshot. Returns its Merkle tree."""
        if self._origin is None:
            raise Unavailable(f"no mirror may be asked for {file.path}", hint="unset HF_HUB_OFFLINE")
        self._total = self._needed = file.size
        self._sharing[file.etag].append(file.path)
        async with companions() as start:
            start(self._report())
            self._enter("mirroring")
            await self._pull_all([file])
        return self._trees.get(file.path)

    async def _adopt(self, files: Sequence[ManifestFile]) -> list[ManifestFile]:
        """Count the files in the cache; return the others, one for each distinct content."""
        with stoppable(self._count_checked) as count:
            adopted = await asyncio.to_thread(adopt, self._repo, files, count)
        absent: dict[str, ManifestFile] = {}
        for file in files:
            if file.etag in adopted:
                self._cached += file.size
                self._verified.add(file.etag)
            else:
                absent.setdefault(file.etag, file)
                self._sharing[file.etag].append(file.path)
        return list(absent.values())

    async def _pull_all(self, files: Sequence[ManifestFile]) -> None:
        await asyncio.to_thread(self._check_space, files)
        # The largest first: the copy takes as long as its slowest file. But small files before them: clients of the
        # hub endpoint request those first, and nothing else until they have them.
        waiting = deque(sorted(files, key=lambda file: (file.size > SMALL, -file.size)))

        async def work() -> None:
            while waiting:
                await self._pull(waiting.popleft())

        await together(work() for _ in range(FILES_AT_ONCE))

    def _check_space(self, files: Sequence[ManifestFile]) -> None:
        """Check the space for bytes not staged yet: an earlier run may have filled the disk."""
        staged = [allocated(self._repo.staged.path_of(file)) for file in files]
        needed = sum(max(0, file.size - held) for file, held in zip(files, staged, strict=True))
        check_publish_space(self._repo, needed, self._chosen)

    async def _pull(self, file: ManifestFile) -> None:
        assert self._origin is not None
        staged = await asyncio.to_thread(self._repo.staged.path_of, file)
        tree = await download_file(
            self._origin,
            self._manifest,
            self._growing.file(self._repo, file),
            staged,
            publish=lambda: publish_blob(self._repo, file, staged),
            log=self._log,
            reuse=self._reuse,
            on_resume=partial(self._count_resumed, file),
            on_bytes=partial(self._count_pulled, file),
        )
        self._verified.add(file.etag)
        paths = self._sharing[file.etag]
        self._shared += file.size * (len(paths) - 1)
        if tree is not None:
            self._trees |= dict.fromkeys(paths, tree)

    def _count_checked(self, count: int) -> None:
        self._checked += count

    def _count_resumed(self, file: ManifestFile, count: int) -> None:
        self._held[file.etag] += count
        self._resumed += count
        self._update_phase()

    def _count_pulled(self, file: ManifestFile, count: int) -> None:
        self._held[file.etag] += count
        self._pulled += count
        self._rate.add(count)
        self._update_phase()

    def _update_phase(self) -> None:
        # Not "at least": wrong bytes are downloaded again.
        self._enter("verifying" if self._resumed + self._pulled == self._needed else "mirroring")

    def _enter(self, phase: Phase) -> None:
        if phase != self._phase:
            self._phase = phase
            self._reporter.progress(self._progress())

    def _file_progress(self) -> tuple[FileProgress, ...]:
        return tuple(self._progress_of(file) for file in self._chosen)

    def _progress_of(self, file: ManifestFile) -> FileProgress:
        verified = file.etag in self._verified
        done = file.size if verified else min(file.size, self._held[file.etag])  # wrong bytes are counted twice
        return FileProgress(file.path, file.size, done, verified)

    def _progress(self) -> Progress:
        held = self._cached + self._resumed
        before = min(self._pulled_before, held)
        exchanged = min(self._exchanged_before, held - before)
        done = self._checked if self._phase == "checking" else min(held + self._pulled + self._shared, self._total)
        return Progress(
            self._phase,
            self._total,
            self._total if self._phase == "done" else done,
            from_cache=held - before - exchanged,
            from_peers=exchanged,
            from_mirrors=self._pulled + before,
            download_rate=self._rate.value() if self._phase == "mirroring" else 0,
        )

    async def _report(self) -> None:
        while True:
            self._reporter.progress(self._progress())
            await asyncio.sleep(REPORT_EVERY)
