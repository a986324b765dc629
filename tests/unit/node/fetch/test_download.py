"""A transfer: the sources of its bytes, its publication, resumption, and its end without sources."""

import asyncio

import pytest

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.core.content.bitfield import pack
from p2pmodel.core.progress.progress import Pieces
from p2pmodel.core.tasks import Start
from p2pmodel.errors import IntegrityError, Unavailable
from p2pmodel.node.fetch.attempt import Attempt
from p2pmodel.node.fetch.pieces.leaseholder import Crowded
from p2pmodel.node.snapshot.piece_record import PieceRecord
from p2pmodel.origin.origin import Origin
from p2pmodel.swarm.torrents import build, layout_of, parse
from tests.support.eventually import PATIENCE, eventually
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_swarm import CONTENTS, TRACKER, Swarm, assert_nothing_runs
from tests.support.shards import random_tensors, shard
from tests.support.stored import publish
from tests.support.torrent_files import trees_of

PATIENT = OriginSettings(connect_timeout=1, read_timeout=1, patience=0.5)


@pytest.fixture
def swarm(tmp_path) -> Swarm:
    return Swarm(tmp_path)


def mirrors(*endpoints: str) -> list[MirrorSettings]:
    return [MirrorSettings(name=f"m{n}", endpoint=url) for n, url in enumerate(endpoints)]


async def test_everything_comes_from_a_peer_and_is_published(swarm: Swarm):
    async with swarm.engine("127.0.0.2") as seeder, swarm.engine() as engine:
        await swarm.seed(seeder)
        async with swarm.transfer(engine) as transfer:
            await transfer.download()
            progress = transfer.progress()
    assert swarm.published() == CONTENTS
    assert progress.phase == "done"
    assert progress.from_peers == progress.total == swarm.metainfo.manifest.total_size
    await assert_nothing_runs()


async def test_a_node_to_which_others_have_come_joins_the_swarm_again_once(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, attempts = Attempt.run, list[Attempt]()

    async def crowded_at_first(attempt: Attempt, start: Start) -> None:
        async def come() -> None:
            await eventually(lambda: bool(attempt.status().have), what="a piece has come")
            raise Crowded

        async def hear_nothing() -> None:
            await asyncio.Event().wait()

        attempts.append(attempt)
        if len(attempts) == 1:
            monkeypatch.setattr(attempt, "follow_events", hear_nothing)
            start(come())
        await run(attempt, start)

    monkeypatch.setattr(Attempt, "run", crowded_at_first)
    async with swarm.engine("127.0.0.2") as seeder, swarm.engine() as engine:
        await swarm.seed(seeder)
        async with swarm.transfer(engine) as transfer:
            await transfer.download()
            progress = transfer.progress()
    assert (swarm.published(), len(attempts)) == (CONTENTS, 2)
    assert progress.from_peers == progress.total
    await assert_nothing_runs()


async def test_blobs_of_the_cache_are_adopted(swarm: Swarm):
    cache = swarm.cache()
    publish(cache, swarm.snapshot, paths=["model.safetensors", "copy.safetensors", "empty.txt"], refs=())
    async with swarm.engine("127.0.0.2") as seeder, swarm.engine() as engine:
        await swarm.seed(seeder)
        async with swarm.transfer(engine, cache=cache) as transfer:
            await transfer.download()
            progress = transfer.progress()
    assert swarm.published(cache) == CONTENTS
    assert progress.from_cache == 2 * 768_000
    assert progress.from_peers == progress.total - progress.from_cache


async def test_only_what_changed_since_another_revision_is_downloaded(tmp_path):
    old = random_tensors(6, 300_000)
    new = old | {"layer.2.weight": bytes(300_000)}
    swarm = Swarm(tmp_path, snapshot_of({"model.safetensors": shard(new, {"format": "pt"})}))
    cache = swarm.cache()
    publish(cache, snapshot_of({"model.safetensors": shard(old)}), refs=("main",))
    async with swarm.engine("127.0.0.2") as seeder, swarm.engine() as engine:
        await swarm.seed(seeder)
        async with swarm.transfer(engine, cache=cache) as transfer:
            await transfer.download()
            progress = transfer.progress()
    assert swarm.published(cache) == {"model.safetensors": shard(new, {"format": "pt"})}
    piece = swarm.metainfo.layout.piece_length
    assert 0 < progress.from_peers <= 300_000 + 3 * piece  # the tensor, what shares its pieces, and the header
    assert any("in other revisions" in note for note in swarm.heard.notes)


@pytest.mark.parametrize("longer", [0, 200_000], ids=["short header", "header of several pieces"])
async def test_tensors_that_have_moved_are_found_once_the_header_has_come(tmp_path, longer: int):
    """The header comes first, alone: nothing of the moved tensors is downloaded."""
    old = random_tensors(12, 300_000)
    new = {"new.weight": bytes(100_000), **dict(reversed(old.items()))}
    content = shard(new, {"notes": "x" * longer})
    swarm = Swarm(tmp_path, snapshot_of({"model.safetensors": content, "README.md": b"new"}))
    cache = swarm.cache()
    publish(cache, snapshot_of({"model.safetensors": shard(old)}), refs=("main",))
    async with swarm.engine("127.0.0.2") as seeder, swarm.engine() as engine:
        await swarm.seed(seeder)
        async with swarm.transfer(engine, cache=cache) as transfer:
            await transfer.download()
            progress = transfer.progress()
    assert swarm.published(cache)["model.safetensors"] == content
    piece = swarm.metainfo.layout.piece_length
    assert 0 < progress.from_peers <= 100_000 + longer + 3 * piece
    assert progress.from_peers + progress.from_cache == progress.total
    await assert_nothing_runs()


async def test_a_damaged_blob_is_not_adopted_but_replaced(swarm: Swarm):
    cache = swarm.cache()
    repo = cache.repo(swarm.metainfo.manifest.repo)
    file = swarm.snapshot.file("nested/other.bin")
    repo.blob_path(file).parent.mkdir(parents=True)
    repo.blob_path(file).write_bytes(b"x" * file.size)
    async with swarm.engine("127.0.0.2") as seeder, swarm.engine() as engine:
        await swarm.seed(seeder)
        async with swarm.transfer(engine, cache=cache) as transfer:
            await transfer.download()
    assert swarm.published(cache) == CONTENTS


async def test_staged_pieces_are_found_again_without_a_record(swarm: Swarm):
    staged_bytes = 512 << 10
    file = swarm.snapshot.file("model.safetensors")
    swarm.cache().repo(swarm.metainfo.manifest.repo).staged.path_of(file).write_bytes(
        CONTENTS["model.safetensors"][:staged_bytes]
    )
    async with swarm.engine("127.0.0.2") as seeder, swarm.engine() as engine:
        await swarm.seed(seeder)
        async with swarm.transfer(engine) as transfer:
            await transfer.download()
            assert transfer.progress().from_cache == staged_bytes
    assert swarm.published() == CONTENTS


async def test_a_wrong_record_of_staged_bytes_costs_only_those_bytes(swarm: Swarm):
    file = swarm.snapshot.file("model.safetensors")
    index = swarm.metainfo.manifest.files.index(file)
    staged = swarm.cache().repo(swarm.metainfo.manifest.repo).staged
    content = bytearray(CONTENTS["model.safetensors"])
    content[5] ^= 1
    staged.paths_of(swarm.metainfo.manifest.files)[index].write_bytes(content)
    span = swarm.metainfo.layout.spans[index]
    PieceRecord(staged, swarm.metainfo).save(span.pieces, span.pieces)
    async with swarm.engine("127.0.0.2") as seeder, swarm.engine() as engine:
        await swarm.seed(seeder)
        async with swarm.transfer(engine) as transfer:
            await transfer.download()
    assert swarm.published() == CONTENTS
    assert any("damaged" in note for note in swarm.heard.notes)


async def test_orphan_pieces_come_from_a_mirror(swarm: Swarm):
    async with (
        FakeHub(swarm.snapshot) as hub,
        swarm.engine() as engine,
        Origin(mirrors(hub.url), PATIENT) as origin,
        swarm.transfer(engine, origin=origin) as transfer,
    ):
        await transfer.download()
        assert transfer.progress().from_mirrors == swarm.metainfo.manifest.total_size
        pieces = transfer.pieces()
        assert pieces.from_mirrors == pieces.have == pack(range(pieces.count), pieces.count)
        assert pieces.from_cache == pack((), pieces.count)
    assert transfer.pieces() == Pieces()
    assert swarm.published() == CONTENTS
    await assert_nothing_runs()


async def test_a_corrupt_mirror_is_skipped(swarm: Swarm):
    async with (
        FakeHub(swarm.snapshot, faults=["flip"]) as liar,
        FakeHub(swarm.snapshot) as honest,
        swarm.engine() as engine,
        Origin(mirrors(liar.url, honest.url), PATIENT, on_note=swarm.heard.notes.append) as origin,
        swarm.transfer(engine, origin=origin) as transfer,
    ):
        await transfer.download()
    assert swarm.published() == CONTENTS
    assert any("m0" in note for note in swarm.heard.notes)


async def test_peers_are_preferred_to_mirrors(swarm: Swarm):
    async with FakeHub(swarm.snapshot) as hub, swarm.engine("127.0.0.2") as seeder, swarm.engine() as engine:
        await swarm.seed(seeder)
        async with Origin(mirrors(hub.url), PATIENT) as origin, swarm.transfer(engine, origin=origin) as transfer:
            await transfer.download()
        assert hub.sent == 0


@pytest.mark.parametrize("with_mirror", [True, False])
async def test_a_lack_of_sources_is_an_error_within_the_bound(swarm: Swarm, with_mirror: bool):
    async with swarm.engine() as engine, Origin(mirrors("http://127.0.0.1:9"), PATIENT) as origin:
        with pytest.raises(Unavailable, match=r"no source for .*peers") as caught:
            async with swarm.transfer(engine, origin=origin if with_mirror else None) as transfer:
                await transfer.download()
    assert ("m0" in str(caught.value)) == with_mirror
    assert not swarm.published()
    await assert_nothing_runs()


async def test_a_torrent_made_from_wrong_bytes_publishes_no_snapshot(swarm: Swarm):
    wrong = dict(CONTENTS) | {"nested/other.bin": b"wrong" * 60_000}
    manifest = swarm.metainfo.manifest
    swarm.metainfo = parse(build(manifest, trees_of(wrong, layout_of(manifest).piece_length), trackers=[TRACKER]))
    async with swarm.engine("127.0.0.2") as seeder, swarm.engine() as engine:
        await swarm.seed(seeder, wrong)
        async with swarm.transfer(engine) as transfer:
            with pytest.raises(IntegrityError, match=r"nested/other\.bin"):
                await transfer.download()
    repo = swarm.cache().repo(manifest.repo)
    assert repo.blob(swarm.snapshot.file("nested/other.bin")) is None
    assert not swarm.published()


async def test_a_part_of_the_files(swarm: Swarm):
    index = swarm.metainfo.manifest.files.index(swarm.snapshot.file("nested/other.bin"))
    async with swarm.engine("127.0.0.2") as seeder, swarm.engine() as engine:
        await swarm.seed(seeder)
        async with swarm.transfer(engine, files=frozenset({index})) as transfer:
            await transfer.download()
            assert transfer.progress().from_peers == 300_000
    assert swarm.published() == {"nested/other.bin": CONTENTS["nested/other.bin"]}


async def test_a_cancelled_download_is_taken_up_again(swarm: Swarm):
    async with swarm.engine() as engine:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), swarm.transfer(engine, stall_timeout=9) as transfer:
                await transfer.download()
    await assert_nothing_runs()
    async with swarm.engine("127.0.0.2") as seeder, swarm.engine() as engine:
        await swarm.seed(seeder)
        async with swarm.transfer(engine) as transfer:
            await transfer.download()
    assert swarm.published() == CONTENTS


async def test_seeding_ends_after_its_time_or_ratio(swarm: Swarm):
    async with swarm.engine("127.0.0.2") as seeder, swarm.engine() as engine:
        await swarm.seed(seeder)
        async with swarm.transfer(engine) as transfer:
            await transfer.download()
            async with asyncio.timeout(PATIENCE):
                await transfer.seed(seconds=0.2, ratio=None)
                await transfer.seed(seconds=None, ratio=0.0)
            seeding = asyncio.create_task(transfer.seed(seconds=None, ratio=0.9))
            async with swarm.engine("127.0.0.3") as third, swarm.transfer(third, cache=swarm.cache("third")) as other:
                await seeder.__aexit__()
                await other.download()
                async with asyncio.timeout(PATIENCE):
                    await seeding
    assert swarm.published(swarm.cache("third")) == CONTENTS
    await assert_nothing_runs()
