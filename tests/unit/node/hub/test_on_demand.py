"""Content on demand: one lock, one transfer, and an end to every wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from p2pmodel.config.sections.daemon import DaemonSettings
from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import NotYet, P2PModelError, Unavailable
from p2pmodel.node.hub import on_demand
from p2pmodel.node.hub.on_demand import LARGE, HubContent
from p2pmodel.node.node import Node
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.evidence.voucher import CACHE
from p2pmodel.node.snapshot.target import ResolvedTarget
from p2pmodel.store.cache import HubCache
from p2pmodel.store.content_locks import HeldLock, take_lock
from p2pmodel.store.growing_file import HOLD_BACK
from p2pmodel.swarm.memory.torrent import MemoryTorrent
from tests.support.eventually import eventually
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import HubSnapshot, snapshot_of
from tests.support.node_machine import SEEDER, Machine, machine, other_swarm, torrent, until_state
from tests.support.node_swarm import Swarm
from tests.support.recording_reporter import RecordingReporter

__all__ = ["machine"]

WEIGHTS = bytes(range(256)) * (3 << 12)
SMALL = snapshot_of({"config.json": b"{}", "model.safetensors": WEIGHTS})
MAIN = Reference.parse("org/model")
LONG = bytes(range(256)) * (LARGE // 256 + 1)


class Desk:
    """A hub, a node with this hub as its mirror, and the requests of its clients."""

    def __init__(self, machine: Machine, hub: FakeHub, node: Node, asked: HubContent) -> None:
        self.machine = machine
        self.hub = hub
        self.node = node
        self.asked = asked

    def file(self, path: str) -> ManifestFile:
        return self.hub.snapshot.file(path)

    @property
    def manifest(self) -> Manifest:
        return self.hub.snapshot.manifest

    def take(self, path: str) -> HeldLock | None:
        """The file's lock, as a client's process takes it."""
        return take_lock(self.asked.cache.root / ".locks" / "models--org--model" / f"{self.file(path).etag}.lock")

    def here(self, path: str) -> bool:
        return self.asked.cache.repo(self.manifest.repo).blob(self.file(path)) is not None

    def pulled(self) -> set[str]:
        return {r.path.rpartition("/")[2] for r in self.hub.requests if r.method == "GET" and "/resolve/" in r.path}

    async def read(self, path: str) -> bytes:
        async with self.asked.reader(self.manifest, self.file(path)) as reader:
            offset = 0
            while offset < self.file(path).size:
                offset = await reader.ready(offset)
            return reader.file.read()


@asynccontextmanager
async def desk(machine: Machine, snapshot: HubSnapshot = SMALL, *faults: str) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(FakeHub(snapshot, faults=faults))
        machine.use(mirrors=(MirrorSettings(name="hub", endpoint=hub.url),), offline=False)
        node = await stack.enter_async_context(machine.running())
        asked = await stack.enter_async_context(HubContent(node, RecordingReporter(note=machine.notes.append)))
        yield Desk(machine, hub, node, asked)


async def test_an_expected_file_is_locked_until_it_is_published(machine: Machine) -> None:
    async with desk(machine, SMALL, "slow:6000000@*.safetensors") as at:
        for file in at.manifest.files:
            await at.asked.expect(at.manifest, file)
        assert at.take("model.safetensors") is None
        (await soon(at, "model.safetensors")).release()
        assert at.here("model.safetensors"), "given back when it is here, not before"
        [view] = at.node.transfers()
        await until_state(at.node, view.id, "ready")
        await at.asked.expect(at.manifest, at.file("model.safetensors"))
        assert len(at.node.transfers()) == 1


async def test_a_failure_releases_the_lock_and_ends_the_reader(machine: Machine) -> None:
    async with desk(machine, SMALL, "status:404@*.safetensors") as at:
        await at.asked.expect(at.manifest, at.file("model.safetensors"))
        with pytest.raises(P2PModelError):
            await at.read("model.safetensors")
        lock = await soon(at, "model.safetensors")
        lock.release()
        assert not at.here("model.safetensors")
        at.hub.faults.clear()
        assert await at.read("model.safetensors") == WEIGHTS


async def soon(at: Desk, path: str) -> HeldLock:
    taken: list[HeldLock] = []

    def free() -> bool:
        lock = at.take(path)
        taken.extend([lock] if lock else [])
        return lock is not None

    await eventually(free, what="the lock")
    return taken[0]


async def test_a_client_that_was_first_at_the_lock_gets_the_end_before_it_gives_it_back(machine: Machine) -> None:
    async with desk(machine) as at:
        lock = at.take("model.safetensors")
        assert lock is not None
        assert await at.read("model.safetensors") == WEIGHTS
        assert not at.here("model.safetensors")
        lock.release()
        await until_state(at.node, at.node.transfers()[0].id, "ready")
        assert at.here("model.safetensors")


async def test_only_requested_files_are_downloaded(machine: Machine) -> None:
    large = snapshot_of({"config.json": b"{}", "tokenizer.json": b"[]", "model.safetensors": bytes(LARGE + 1)})
    async with desk(machine, large) as at:
        assert await at.read("config.json") == b"{}"
        await until_state(at.node, at.node.transfers()[0].id, "ready")
        assert at.pulled() == {"config.json", "tokenizer.json"}
        await at.asked.expect(at.manifest, at.file("model.safetensors"))
        await eventually(lambda: at.here("model.safetensors"), what="the weights")
        await until_state(at.node, at.node.transfers()[0].id, "ready")
        assert at.here("model.safetensors")
        assert len(at.node.transfers()) == 1


async def test_a_reader_of_wrong_bytes_ends(machine: Machine) -> None:
    big = snapshot_of({"model.safetensors": WEIGHTS * 4})
    async with desk(machine, big, "flip") as at:
        with pytest.raises(P2PModelError):
            await at.read("model.safetensors")
        assert at.asked.repo(at.manifest).recently_corrupt(at.file("model.safetensors"))
        assert not at.here("model.safetensors")


async def test_a_paused_transfer_stays_paused(machine: Machine) -> None:
    async with desk(machine, SMALL, "slow:200000@*.safetensors") as at:
        await at.asked.expect(at.manifest, at.file("model.safetensors"))
        await eventually(lambda: bool(at.node.transfers()), what="a transfer")
        await at.node.pause(at.node.transfers()[0].id)
        (await soon(at, "model.safetensors")).release()
        with pytest.raises(Unavailable, match="paused"):
            await at.read("model.safetensors")
        assert at.node.transfers()[0].state == "paused"


async def test_a_file_without_bytes_in_time_is_not_yet_available(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_demand, "OPEN_WITHIN", 0.0)
    async with desk(machine) as at:
        with pytest.raises(NotYet, match="no byte received yet"):
            await at.read("model.safetensors")
    locks, file = HubCache(machine.settings.cache_dir).locks, SMALL.file("model.safetensors")
    assert locks.try_acquire(SMALL.manifest.repo, file), "closing gave it back"
    locks.release(SMALL.manifest.repo, file)


async def test_branches_come_from_the_mirrors_and_then_from_the_records(machine: Machine) -> None:
    async with desk(machine) as at:
        assert (await at.asked.manifest(MAIN)).commit == SMALL.commit
        await at.read("model.safetensors")
        assert at.machine.settings.cache_dir.joinpath("models--org--model/.p2pmodel/revisions").is_dir()
        await until_state(at.node, at.node.transfers()[0].id, "ready")
        assert HubCache(machine.settings.cache_dir).repo(SMALL.manifest.repo).refs() == {"main": SMALL.commit}


async def test_a_revision_is_requested_of_the_mirror_once(machine: Machine) -> None:
    async with desk(machine) as at:
        manifest = await at.asked.manifest(MAIN)
        await at.asked.expect(manifest, at.file("model.safetensors"))
        (await soon(at, "model.safetensors")).release()
        assert len([r for r in at.hub.requests if "/revision/" in r.path]) == 1


async def test_files_that_get_their_names_while_they_are_opened(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_demand, "OPEN_WITHIN", 60.0)
    many = snapshot_of({f"{number}.json": b"%d" % number for number in range(300)})
    async with desk(machine, many) as at:
        found = await asyncio.gather(*(at.read(path) for path in many.contents))
        assert found == list(many.contents.values())


async def test_bytes_from_a_mirror_are_readable_before_the_rest(machine: Machine) -> None:
    big = snapshot_of({"model.safetensors": WEIGHTS * 4})
    async with desk(machine, big, "slow:1000000") as at, at.asked.reader(at.manifest, *big.files.values()) as reader:
        end = await reader.ready(0)
        assert 0 < end <= len(WEIGHTS) * 4 - HOLD_BACK
        assert reader.file.read(end) == (WEIGHTS * 4)[:end]
        assert not at.here("model.safetensors")


async def test_verified_pieces_are_readable_before_the_rest(machine: Machine) -> None:
    """A seeder with one wrong piece: the bytes before it can be read, those after it cannot."""
    big = snapshot_of({"model.safetensors": WEIGHTS * 2})
    swarm = Swarm(machine.root, big)
    swarm.network = machine.swarm.network
    wrong = (4 << 20) + 5
    broken = (WEIGHTS * 2)[:wrong] + b"?" + (WEIGHTS * 2)[wrong + 1 :]
    engine = await machine.stack.enter_async_context(machine.swarm.engine(SEEDER))
    await swarm.seed(engine, {"model.safetensors": broken})
    async with machine.running() as node, HubContent(node, Reporter()) as asked:
        await node.start(torrent(swarm))
        manifest = await asked.manifest(Reference(big.manifest.repo, big.commit))
        async with asked.reader(manifest, big.file("model.safetensors")) as reader:
            end = 0
            while end < 4 << 20:
                end = await reader.ready(end)
            assert end == 4 << 20
            assert reader.file.read(end) == (WEIGHTS * 2)[:end]


async def test_pieces_that_a_client_waits_for_go_first(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """First the beginning of an empty file, then the byte that the client waits for."""
    wishes: list[int] = []
    monkeypatch.setattr(MemoryTorrent, "prioritize", lambda _, piece: wishes.append(piece))
    big = snapshot_of({"first.safetensors": WEIGHTS, "model.safetensors": WEIGHTS[1:] * 2})
    swarm = Swarm(machine.root, big)
    swarm.network = machine.swarm.network
    layout, late = swarm.metainfo.layout, (4 << 20) + 5
    begins = layout.spans[big.manifest.files.index(big.file("model.safetensors"))].first_piece
    broken = bytearray(big.contents["model.safetensors"])
    broken[late] ^= 1
    async with machine.running() as node, HubContent(node, Reporter()) as asked:
        await node.start(torrent(swarm))
        manifest = await asked.manifest(Reference(big.manifest.repo, big.commit))

        async def read() -> None:
            async with asked.reader(manifest, big.file("model.safetensors")) as reader:
                await reader.ready(0)
                await reader.ready(late)

        reading = asyncio.create_task(read())
        await eventually(lambda: set(wishes) == {begins}, what="a wish for the beginning")
        engine = await machine.stack.enter_async_context(machine.swarm.engine(SEEDER))
        await swarm.seed(engine, {"first.safetensors": WEIGHTS, "model.safetensors": bytes(broken)})
        rest = begins + late // layout.piece_length
        await eventually(lambda: rest in wishes, what="a wish for the rest")
        reading.cancel()


@asynccontextmanager
async def behind_another(machine: Machine, *faults: str) -> AsyncIterator[Desk]:
    """A desk of which the node's only place is taken by a transfer that gets no bytes."""
    machine.use(daemon=DaemonSettings(max_active=1))
    async with desk(machine, snapshot_of({"config.json": b"{}", "model.safetensors": LONG}), *faults) as at:
        swarm = other_swarm(machine, 1)
        found = ResolvedTarget(swarm.metainfo.manifest, swarm.metainfo, vouched_by=CACHE)
        view = await at.node.start(torrent(swarm), found=found, priority=5)
        await until_state(at.node, view.id, "active")
        yield at


async def test_a_small_file_does_not_wait_in_the_queue(machine: Machine) -> None:
    async with behind_another(machine) as at:
        assert await at.read("config.json") == b"{}"
        await eventually(lambda: at.here("config.json"), what="it is published")
        assert [view.state for view in at.node.transfers() if view.repo == "org/model"] == ["queued"]
        assert at.pulled() == {"config.json"}


async def test_a_small_file_that_no_mirror_has_is_left_to_its_transfer(machine: Machine) -> None:
    async with behind_another(machine, "status:404@config.json") as at:
        await at.asked.expect(at.manifest, at.file("config.json"))
        await eventually(lambda: "config.json" in at.pulled(), what="it was asked for")
        at.hub.faults.clear()
        [blocking] = [view for view in at.node.transfers() if view.repo != "org/model"]
        await at.node.cancel(blocking.id)
        assert await at.read("config.json") == b"{}"


async def test_a_large_file_goes_before_transfers_that_no_client_waits_for(machine: Machine) -> None:
    async with behind_another(machine) as at:
        [blocking] = at.node.transfers()
        await at.node.prioritise(blocking.id, 0)
        assert await at.read("model.safetensors") == LONG
        await until_state(at.node, blocking.id, "active")
