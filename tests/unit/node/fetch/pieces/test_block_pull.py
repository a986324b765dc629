"""Parts of pieces from a source over HTTP: what is asked for, what is believed, and what a later run begins with."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from p2pmodel.config.sections.mirrors import OriginSettings
from p2pmodel.core.content.layout import BLOCK, KIB
from p2pmodel.core.content.leaf_proof import Runs
from p2pmodel.core.network.egress import PUBLIC
from p2pmodel.errors import LocalResource
from p2pmodel.http.server import serving
from p2pmodel.node.fetch.pieces import seeders as seeders_module
from p2pmodel.node.fetch.pieces.block_pull import BlockPull
from p2pmodel.node.fetch.pieces.seeders import Endpoint, Seeders
from p2pmodel.node.snapshot.inventory import recover, take_inventory
from p2pmodel.service.hub.app import hub_endpoint
from p2pmodel.service.hub.leaf_hashes import LeafHashes
from p2pmodel.store.cache import HubCache
from p2pmodel.store.files.leaf_record import LeafRecord, leaves_path
from tests.support.eventually import PATIENCE
from tests.support.hub_layout import write_snapshot
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_swarm import Swarm

PATH = "model.safetensors"
WEIGHTS = random.Random(3).randbytes(5 * 128 * KIB - 1000)
NEAR = PUBLIC.in_cluster("127.0.0.1")
WANTED: dict[int, Runs] = {1: ((2, 4),), 2: ((0, 1), (5, 8)), 5: ((6, 8),)}
"""By piece of the swarm's snapshot, of which the first has the configuration."""
SIZE = 8 * BLOCK - 1000

Tamper = Callable[[web.Request], bool]


class Source:
    """A source, of which answers can be tampered with."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.tamper: Tamper = lambda _request: False
        self.fail: Tamper = lambda _request: False
        self.proves = True

    @asynccontextmanager
    async def serve(self, root: Path) -> AsyncIterator[str]:
        app = hub_endpoint(HubCache(root), leaves=LeafHashes() if self.proves else None)

        @web.middleware
        async def watch(request: web.Request, handler: Handler) -> web.StreamResponse:
            kind = "leaves" if "/leaves/" in request.path else "bytes"
            self.asked.append(f"{kind} {request.headers.get('Range', request.query_string)}")
            if self.fail(request):
                raise web.HTTPServiceUnavailable
            if not self.tamper(request):
                return await handler(request)
            if kind == "leaves":
                answer = await handler(request)
                assert isinstance(answer, web.Response)
                assert isinstance(answer.body, bytes)
                return web.Response(body=answer.body[:-1] + bytes([answer.body[-1] ^ 1]))
            first, last = map(int, request.headers["Range"].removeprefix("bytes=").split("-"))
            headers = {"Content-Range": f"bytes {first}-{last}/{len(WEIGHTS)}"}
            return web.Response(status=206, body=bytes(last + 1 - first), headers=headers)

        app.middlewares.insert(0, watch)
        async with serving(app, "127.0.0.1", 0, grace=0.1) as url:
            yield url


def is_leaves(request: web.Request) -> bool:
    return "/leaves/" in request.path


def is_bytes(request: web.Request) -> bool:
    return not is_leaves(request)


class Rig:
    """A node that pulls parts, and sources that have the snapshot."""

    def __init__(self, root: Path) -> None:
        contents = {"config.json": b"{}", PATH: WEIGHTS}
        self.swarm = Swarm(root, snapshot_of(contents))
        self.metainfo = self.swarm.metainfo
        manifest = self.metainfo.manifest
        self.served = root / "served"
        write_snapshot(self.served, str(manifest.repo), contents, commit=manifest.commit)
        self.repo = HubCache(root / "node").repo(manifest.repo)
        self.repo.staged.list(manifest)
        self.paths = self.repo.staged.paths_of(manifest.files)
        self.span = next(span for span in self.metainfo.layout.spans if span.path == PATH)
        self.staged = self.paths[self.span.index]
        self.here = self.pulled = 0
        self.bad: list[int] = []

    def count(self, size: int, here: bool) -> None:
        if here:
            self.here += size
        else:
            self.pulled += size

    def pull_from(self, seeders: Seeders | None, wanted: dict[int, Runs] = WANTED, patience: float = 0.0) -> BlockPull:
        self.here = self.pulled = 0
        return BlockPull(
            self.metainfo,
            wanted,
            self.paths,
            have=frozenset(),
            seeders=seeders,
            patience=patience,
            on_block=self.count,
            on_bad_piece=self.bad.append,
        )

    async def pull(self, *sources: Source, wanted: dict[int, Runs] = WANTED, patience: float = 0.0) -> BlockPull:
        async with self.seeders(*sources) as seeders:
            pull = self.pull_from(seeders, wanted, patience)
            async with asyncio.timeout(PATIENCE):
                await pull.run()
        return pull

    @asynccontextmanager
    async def seeders(self, *sources: Source) -> AsyncIterator[Seeders]:
        async with Seeders(OriginSettings(), "me", lambda _: None) as seeders:
            if len(sources) == 2:
                async with sources[0].serve(self.served) as one, sources[1].serve(self.served) as two:
                    await seeders.update([Endpoint(one, egress=NEAR), Endpoint(two, egress=NEAR)])
                    yield seeders
                return
            async with sources[0].serve(self.served) as one:
                await seeders.update([Endpoint(one, egress=NEAR)])
                yield seeders

    def wrong(self) -> list[tuple[int, int]]:
        """Places of the wanted blocks that are not in the staged file, in order."""
        data = self.staged.read_bytes() if self.staged.exists() else b""
        found = []
        for piece, runs in WANTED.items():
            offset = self.metainfo.layout.piece_range(piece).offset
            for first, end in runs:
                start, stop = offset + first * BLOCK, min(offset + end * BLOCK, len(WEIGHTS))
                if data[start:stop] != WEIGHTS[start:stop]:
                    found.append((piece, first))
        return found

    def known(self) -> list[int]:
        """The blocks on record."""
        record = LeafRecord(self.staged, self.metainfo.trees[PATH].root)
        return [block for block, leaf in enumerate(record.known(0, -(-len(WEIGHTS) // BLOCK))) if leaf]


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr(seeders_module, "AGAIN_AFTER", 0.05)
    monkeypatch.setattr(seeders_module, "PATIENCE", 0.05)
    return Rig(tmp_path)


async def test_the_wanted_blocks_come_and_no_others(rig: Rig) -> None:
    source = Source()
    pull = await rig.pull(source)
    assert not pull.left
    assert not rig.wrong()
    assert (rig.here, rig.pulled) == (0, SIZE)
    assert sum(asked.startswith("bytes") for asked in source.asked) == 4
    assert sum(asked.startswith("leaves") for asked in source.asked) == 3
    assert rig.known() == [2, 3, 8, 13, 14, 15, 38, 39]
    assert set(rig.staged.read_bytes()[: 2 * BLOCK]) == {0}


async def test_what_is_here_is_not_asked_for_again_without_any_source(rig: Rig) -> None:
    await rig.pull(Source())
    again = rig.pull_from(None)
    await again.run()
    assert not again.left
    assert (rig.here, rig.pulled) == (SIZE, 0)


async def test_a_block_that_was_damaged_here_is_pulled_again_alone(rig: Rig) -> None:
    await rig.pull(Source())
    with rig.staged.open("r+b") as file:
        file.seek(14 * BLOCK + 5)
        file.write(b"damage")
    source = Source()
    await rig.pull(source)
    assert not rig.wrong()
    assert (rig.here, rig.pulled) == (SIZE - BLOCK, BLOCK)
    assert source.asked == ["leaves first=8&width=8&blocks=6-6", f"bytes bytes={14 * BLOCK}-{15 * BLOCK - 1}"]


@pytest.mark.parametrize("what", [is_leaves, is_bytes])
async def test_wrong_answers_are_not_written_and_another_source_is_asked(rig: Rig, what: Tamper) -> None:
    liar = Source()
    liar.tamper = what
    pull = await rig.pull(liar)
    assert pull.left == set(WANTED)
    assert not rig.known()
    assert set(rig.bad) == set(WANTED)
    pull = await rig.pull(liar, Source(), patience=PATIENCE)
    assert not pull.left
    assert not rig.wrong()


async def test_a_source_without_proofs_is_asked_a_few_times_and_its_pieces_are_left(rig: Rig) -> None:
    source = Source()
    source.proves = False
    pull = await rig.pull(source, patience=PATIENCE)
    assert pull.left == set(WANTED)
    assert all(asked.startswith("leaves") for asked in source.asked)


async def test_a_source_that_dies_leaves_what_came_before(rig: Rig) -> None:
    source = Source()
    source.fail = lambda request: request.headers.get("Range", "").startswith(f"bytes={13 * BLOCK}-")
    pull = await rig.pull(source)
    assert pull.left == {2}
    assert rig.wrong() == [(2, 5)]
    source.asked.clear()
    source.fail = lambda _request: False
    assert not (await rig.pull(source)).left
    assert (rig.here, rig.pulled) == (SIZE - 3 * BLOCK, 3 * BLOCK)
    assert len(source.asked) == 2


async def test_a_cancelled_pull_goes_on_where_it_was(rig: Rig) -> None:
    source, held = Source(), asyncio.Event()

    def hold(request: web.Request) -> bool:
        if request.headers.get("Range", "").startswith(f"bytes={13 * BLOCK}-"):
            held.set()
            return True
        return False

    source.fail = hold
    async with rig.seeders(source) as seeders:
        pulling = asyncio.create_task(rig.pull_from(seeders, patience=PATIENCE).run())
        await held.wait()
        pulling.cancel()
        await asyncio.gather(pulling, return_exceptions=True)
    source.fail = lambda _request: False
    before = len(rig.known())
    assert not (await rig.pull(source)).left
    assert not rig.wrong()
    assert rig.here >= (before - 1) * BLOCK
    assert before >= 1


async def test_a_disk_that_fails_is_an_error(rig: Rig) -> None:
    rig.staged.mkdir()
    with pytest.raises(LocalResource):
        await rig.pull(Source())


async def test_blocks_are_no_piece_until_all_of_a_piece_are_here(rig: Rig) -> None:
    await rig.pull(Source())
    read: list[int] = []
    assert not recover(rig.staged, rig.span, rig.metainfo, frozenset(), read.append)
    assert not read
    assert not take_inventory(rig.repo, rig.metainfo, known=frozenset()).have
    await rig.pull(Source(), wanted={2: ((0, 8),)})
    assert rig.pulled == 4 * BLOCK
    assert take_inventory(rig.repo, rig.metainfo, known=frozenset()).have == {2}
    assert rig.repo.blob(rig.metainfo.manifest.files[rig.span.index]) is None


async def test_the_record_belongs_to_one_tree_and_goes_with_the_staged_file(rig: Rig) -> None:
    await rig.pull(Source())
    other = LeafRecord(rig.staged, bytes(32))
    assert other.lacking(0, len(WEIGHTS), ((2, 4),)) == ((2, 4),)
    other.write(0, WEIGHTS[:BLOCK], {0: bytes([1]) * 32})
    assert not rig.known()
    rig.repo.staged.drop([rig.metainfo.manifest.files[rig.span.index].etag])
    assert not leaves_path(rig.staged).exists()
