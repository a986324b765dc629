"""Fetch what one rank needs: the settings files, and of the weights the blocks with its part, cut out into one file.

Invariants, to re-check when editing:
1. No weight file gets a name that others trust: it is not whole, so the hub's hash cannot prove it. Its pieces are
   staged, as those of an interrupted download; a later fetch of the whole snapshot begins with them. Blocks of other
   pieces are on record beside the staged file, for the next rank.
2. What the rank file has passed the check of its piece, or of its block. That proves the torrent's content, for which
   its publisher vouches, as the torrent's list of files is vouched for.
3. Without a torrent the whole snapshot is fetched, with a warning, and proved as always.
"""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from p2pmodel.config.settings import Settings
from p2pmodel.core import notes
from p2pmodel.core.content.layout import KIB
from p2pmodel.core.content.leaf_proof import Runs
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.rank_plan import NeededPieces, RankSizes, Rule, needed_pieces, rank_plan
from p2pmodel.core.content.shard_header import LENGTH, StoredTensor, header_length, tensor_places
from p2pmodel.core.progress.progress import Progress
from p2pmodel.core.sizes import counted
from p2pmodel.errors import EntryNotFound, Unavailable
from p2pmodel.node.backends import LazyEngine
from p2pmodel.node.fetch.disputes import DisputedFile
from p2pmodel.node.fetch.download import Download
from p2pmodel.node.fetch.fetch import Fetch, FetchRun
from p2pmodel.node.fetch.job import FetchJob, NodeContext
from p2pmodel.node.fetch.request import FetchRequest, FetchResult
from p2pmodel.node.private.authority import check_private
from p2pmodel.node.ranks.rank_file import PartSource, write_rank_file
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.target import ResolvedTarget, Target
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.folder import open_regular
from p2pmodel.swarm.metainfo import layout_of
from p2pmodel.swarm.torrents import Metainfo

WEIGHTS = ("*.safetensors",)
NOT_WEIGHTS = ("consolidated*.safetensors",)
"""The same weights once more, for another program."""

FIRST = 32 * KIB
"""Bytes of each weight file that are fetched first: the header of most."""

RuleOf = Callable[[Path], Rule]
"""Takes the folder of the settings files: what the rank needs of each tensor."""


@dataclass(frozen=True, slots=True)
class RankRequest:
    """What to fetch for a rank. `out`: the file of its part; `rank`: in words, for messages and the file's metadata.
    `needless`: patterns of files that no rank needs."""

    target: Target
    out: Path
    rank: str
    needless: tuple[str, ...] = ()
    peers: tuple[tuple[str, int], ...] = ()
    seed_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class RankResult:
    """The file of a rank's part, its sizes, and the folder with the settings files."""

    manifest: Manifest
    out: Path
    path: Path
    sizes: RankSizes
    progress: Progress


class _WeightsFetch(Fetch):
    """The fetch of the weight files, of which parts are downloaded."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[tuple[FetchJob, LazyEngine]]:
        """The job of a download and its engine; closed at the end."""
        async with self._job.http, AsyncExitStack() as stack, self._job.mirrors:
            yield self._job, self._job.engine(stack)


class RankFetch:
    """One fetch for a rank. `rule_of` is called in a thread, once the settings files are here; `context` as in
    `Fetch`."""

    def __init__(
        self,
        request: RankRequest,
        settings: Settings,
        reporter: Reporter,
        rule_of: RuleOf,
        *,
        context: NodeContext | None = None,
    ) -> None:
        self._context = context
        self._request = request
        self._settings = settings
        self._reporter = reporter
        self._rule_of = rule_of

    async def run(self, on_ready: Callable[[RankResult], None]) -> None:
        """Fetch the part, write its file, call `on_ready`, and serve the pieces as long as the request says."""
        first = self._fetch((*WEIGHTS, *self._request.needless))
        found = await first.find()
        weights = found.manifest.select(WEIGHTS, NOT_WEIGHTS)
        if not weights:
            raise EntryNotFound(
                f"{found.manifest.repo} has no safetensors files, of which a rank takes a part",
                hint="fetch it without a rank",
            )
        done: list[FetchResult] = []
        await first.run(done.append, found)
        rule = await asyncio.to_thread(self._rule_of, done[0].path)
        if found.metainfo is None:
            await self._from_the_whole(found, weights, rule, on_ready)
            return
        chosen = FetchRequest(self._request.target, WEIGHTS, NOT_WEIGHTS, peers=self._request.peers)
        fetch = _WeightsFetch(chosen, self._settings, self._reporter, context=self._context)
        async with fetch.opened() as (job, engine):
            await _PartDownload(self._request, job, found, found.metainfo, engine).run(rule, on_ready)

    async def _from_the_whole(
        self,
        found: ResolvedTarget,
        weights: Sequence[ManifestFile],
        rule: Rule,
        on_ready: Callable[[RankResult], None],
    ) -> None:
        repo, commit = found.manifest.repo, found.manifest.commit
        text = f"there is no torrent of {repo}: the whole snapshot is fetched, and the part is cut out of it"
        self._reporter.note(notes.warning("rank_needs_torrent", text, repo=str(repo), commit=commit))
        fetch = self._fetch()
        whole: list[FetchResult] = []
        await fetch.run(whole.append, found)
        cache = fetch.repo(found.manifest)
        sources = await asyncio.to_thread(_sources, cache, found.manifest, weights)
        headers = await asyncio.to_thread(_headers_of, weights, sources)
        plan = rank_plan(headers, rule, layout_of(found.manifest))
        _state(self._reporter, self._request, plan.sizes)
        metadata = _metadata(self._request, found.manifest)
        await asyncio.to_thread(write_rank_file, self._request.out, plan, sources, metadata, None)
        folder = whole[0].path
        on_ready(RankResult(found.manifest, self._request.out, folder, plan.sizes, whole[0].progress))

    def _fetch(self, exclude: tuple[str, ...] = ()) -> Fetch:
        request = FetchRequest(self._request.target, exclude=exclude, peers=self._request.peers)
        return Fetch(request, self._settings, self._reporter, context=self._context)


class _PartDownload:
    """The weights of one rank, through the swarm of `metainfo`."""

    def __init__(
        self, request: RankRequest, job: FetchJob, found: ResolvedTarget, metainfo: Metainfo, engine: LazyEngine
    ) -> None:
        self._request = request
        self._job = job
        self._manifest = found.manifest
        self._metainfo = metainfo
        self._engine = engine
        self._run = FetchRun(job, found, engine, lambda _result: None)
        self._repo = job.cache.repo(found.manifest.repo)
        self._weights = job.selected(found.manifest)
        self._before: Counter[str] = Counter()
        """Bytes of the downloads before the last one, by source."""

    async def run(self, rule: Rule, on_ready: Callable[[RankResult], None]) -> None:
        request, job = self._request, self._job
        check_private(self._metainfo, job.settings.private)
        await self._run.check_contents()
        async with self._run.downloading(self._weights):
            plan = rank_plan(await self._headers(), rule, self._metainfo.layout)
            _state(job.monitor, request, plan.sizes)
            # Pieces are exchanged whole: with all of its own, a rank that serves completes the copy of the others.
            pieces = NeededPieces(plan.pieces.every, {}) if request.seed_seconds else plan.pieces
            async with self._staged(pieces) as download:
                sources = await asyncio.to_thread(_sources, self._repo, self._manifest, self._weights)
                metadata = _metadata(request, self._manifest)
                await asyncio.to_thread(write_rank_file, request.out, plan, sources, metadata, self._metainfo)
                folder = self._repo.snapshot(self._manifest.commit)
                on_ready(RankResult(self._manifest, request.out, folder, plan.sizes, self._progress(download)))
                if request.seed_seconds:
                    await download.seed(seconds=request.seed_seconds, ratio=None)

    async def _headers(self) -> dict[str, list[StoredTensor]]:
        """The tensors of each weight file. The headers are downloaded first, in two rounds at most: the first blocks
        say how long a header is."""
        sources = await asyncio.to_thread(_sources, self._repo, self._manifest, self._weights)
        first = {file.path: min(file.size, FIRST) for file in self._weights}
        await self._stage(first)
        lengths = await asyncio.to_thread(_lengths_of, self._weights, sources)
        longer = {path: LENGTH + length for path, length in lengths.items() if LENGTH + length > first[path]}
        if longer:
            await self._stage(longer)
        return await asyncio.to_thread(_headers_of, self._weights, sources)

    async def _stage(self, heads: Mapping[str, int]) -> None:
        """Have so many bytes at the front of the files staged."""
        ranges = {path: [(0, length)] for path, length in heads.items()}
        async with self._staged(needed_pieces(self._metainfo.layout, ranges)) as download:
            self._count(download)

    @asynccontextmanager
    async def _staged(self, pieces: NeededPieces) -> AsyncIterator[Download]:
        """The download that has staged `pieces`. Of those of which no seeder proves blocks every byte comes."""
        async with await self._download(pieces.whole, pieces.blocks) as download:
            await self._complete(download)
            left = download.left
            if not left:
                yield download
                return
            self._count(download)
        text = f"no seeder proves blocks of {counted(len(left), 'piece')}, which come whole"
        self._job.monitor.note(notes.info("rank_whole_pieces", text, pieces=len(left)))
        async with await self._download(pieces.whole | left, {}) as download:
            await self._complete(download)
            yield download

    def _count(self, download: Download) -> None:
        """Note what came in a download that is not the last one."""
        progress = download.progress()
        self._before["from_peers"] += progress.from_peers
        self._before["from_seeders"] += progress.from_seeders
        self._before["from_mirrors"] += progress.from_mirrors

    def _progress(self, download: Download) -> Progress:
        """The whole transfer, by its last `download`."""
        last, before = download.progress(), self._before
        return replace(
            last,
            from_cache=max(0, last.from_cache - before["from_peers"] - before["from_mirrors"]),
            from_peers=last.from_peers + before["from_peers"],
            from_seeders=last.from_seeders + before["from_seeders"],
            from_mirrors=last.from_mirrors + before["from_mirrors"],
        )

    async def _download(self, pieces: frozenset[int], blocks: Mapping[int, Runs]) -> Download:
        return Download(
            replace(self._run.plan(self._metainfo), pieces=pieces, blocks=blocks),
            engine=await self._engine.started(),
            repo=self._repo,
            origin=await self._job.mirrors.opened(self._metainfo),
            reporter=self._job.monitor,
        )

    async def _complete(self, download: Download) -> None:
        try:
            await download.download()
        except DisputedFile as dispute:
            path = self._manifest.files[dispute.index].path
            raise Unavailable(
                f"mirrors and the torrent of {self._manifest.repo} disagree about {path}",
                hint="fetch the whole snapshot: the hub's hash decides then",
            ) from None


def _state(reporter: Reporter, request: RankRequest, sizes: RankSizes) -> None:
    """Say what moves before it does."""
    text = (
        f"{request.rank} needs {sizes.needed} of {sizes.total} bytes: {sizes.own} of its own, {sizes.shared} that other"
        f" ranks need, too; {sizes.in_blocks} in blocks, {sizes.in_pieces} in pieces"
    )
    if sizes.by_rows:
        text += f"; {sizes.by_rows} of them for tensors that are cut in their rows, and come whole"
    keys = {name: size for name, size in asdict(sizes).items() if name != "uncut"}
    reporter.note(notes.info("rank_plan", text, **keys))
    if sizes.uncut:
        text = f"{len(sizes.uncut)} tensors have no equal parts and come whole, {sizes.uncut[0]} for one"
        reporter.note(notes.warning("rank_uncut", text, tensors=list(sizes.uncut[:20])))


def _metadata(request: RankRequest, manifest: Manifest) -> dict[str, str]:
    return {"repo": str(manifest.repo), "commit": manifest.commit, "rank": request.rank}


@translated()
def _sources(repo: RepoCache, manifest: Manifest, weights: Sequence[ManifestFile]) -> dict[str, PartSource]:
    staged = dict(zip((file.path for file in manifest.files), repo.staged.paths_of(manifest.files), strict=True))
    found = {}
    for file in weights:
        blob = repo.usable(file)
        found[file.path] = PartSource(blob or staged[file.path], staged=blob is None)
    return found


@translated()
def _lengths_of(weights: Sequence[ManifestFile], sources: Mapping[str, PartSource]) -> dict[str, int]:
    """The length of each header; its first bytes are here."""
    return {file.path: header_length(_bytes(sources, file, LENGTH), file.path, file.size) for file in weights}


@translated()
def _headers_of(weights: Sequence[ManifestFile], sources: Mapping[str, PartSource]) -> dict[str, list[StoredTensor]]:
    """The tensors of each file; its header is here."""
    found = {}
    for file in weights:
        length = header_length(_bytes(sources, file, LENGTH), file.path, file.size)
        header = _bytes(sources, file, LENGTH + length)[LENGTH:]
        found[file.path] = tensor_places(header, file.path, file.size)
    return found


def _bytes(sources: Mapping[str, PartSource], file: ManifestFile, size: int) -> bytes:
    descriptor = open_regular(sources[file.path].path)
    try:
        return os.pread(descriptor, size, 0)
    finally:
        os.close(descriptor)
