"""What every swarm engine promises: run against the real one and its in-memory twin."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from p2pmodel.errors import BadTorrent, InvalidInput, LocalResource, NoSpace, Unavailable
from p2pmodel.swarm.engine import (
    AddTorrent,
    DiskFailed,
    Engine,
    EngineSettings,
    Event,
    PeerBanned,
    PieceRejected,
    PieceVerified,
    SwarmTorrent,
    TrackerFailed,
)
from p2pmodel.swarm.libtorrent.engine import LibtorrentEngine
from p2pmodel.swarm.magnet import magnet_of
from p2pmodel.swarm.memory.engine import MemoryEngine, MemoryNetwork
from p2pmodel.swarm.peer_ids import is_ours
from p2pmodel.swarm.split.engine import SplitEngine
from p2pmodel.swarm.torrents import Metainfo, parse
from tests.support.eventually import PATIENCE
from tests.support.torrent_files import torrent_of

PIECE = 1 << 16
CONTENTS = {
    "config.json": b"{}" * 40,
    "empty.txt": b"",
    "model-1.safetensors": os.urandom(40 * PIECE + 321),
    "model-2.safetensors": os.urandom(9 * PIECE),
    "sub/model-3.safetensors": os.urandom(3 * PIECE + 1),
}
TORRENT = parse(torrent_of(CONTENTS, piece_length=PIECE))
ALL = frozenset(range(TORRENT.layout.piece_count))
TOTAL = sum(map(len, CONTENTS.values()))
DEAD_TRACKER = "http://127.0.0.1:9/announce"

MakeEngine = Callable[[EngineSettings], Engine]


@pytest.fixture(params=[1, 2, 4])
def engines(request: pytest.FixtureRequest) -> int:
    """How many engines a node has."""
    return int(request.param)


@pytest.fixture(params=["memory", "libtorrent"])
def make_engine(request: pytest.FixtureRequest, engines: int) -> MakeEngine:
    kind = request.param
    network = MemoryNetwork()
    network.dead_trackers.add(DEAD_TRACKER)

    def one(settings: EngineSettings) -> Engine:
        return LibtorrentEngine(settings) if kind == "libtorrent" else MemoryEngine(network, settings)

    return one if engines == 1 else lambda settings: SplitEngine(settings, engines, one)


@dataclass
class Swarm:
    """Starts nodes on 127.0.0.x and stops them all at the end."""

    make: MakeEngine
    folder: Path
    stack: AsyncExitStack
    engines: int
    """How many engines each node has."""
    hosts: Iterable[int] = field(default_factory=lambda: iter(range(1, 200)))

    async def engine(self, zone: str = "") -> Engine:
        settings = EngineSettings(host=f"127.0.0.{next(self.hosts)}", zone=zone)
        return await self.stack.enter_async_context(self.make(settings))

    async def node(
        self,
        contents: dict[str, bytes] | None = None,
        *,
        metainfo: Metainfo = TORRENT,
        zone: str = "",
        **request: object,
    ) -> "Node":
        engine = await self.engine(zone)
        folder = self.folder / engine.address[0]
        files = {}
        for number, (index, file) in enumerate(zip(metainfo.file_indexes, metainfo.manifest.files, strict=True)):
            path = folder / "staging" / f"{number}.part"
            files[index] = str(path) if number % 2 else str(path.relative_to(folder))
            if contents is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(contents[file.path])
        have = ALL if contents is not None and "have" not in request else frozenset()
        torrent = await engine.add(AddTorrent(metainfo.raw, folder, files, **({"have": have} | request)))
        return Node(engine, torrent, folder, metainfo)


@dataclass
class Node:
    engine: Engine
    torrent: SwarmTorrent
    folder: Path
    metainfo: Metainfo
    seen: list[Event] = field(default_factory=list)

    def path(self, name: str) -> Path:
        number = [file.path for file in self.metainfo.manifest.files].index(name)
        return self.folder / "staging" / f"{number}.part"

    def index(self, name: str) -> int:
        return self.metainfo.file_indexes[[file.path for file in self.metainfo.manifest.files].index(name)]

    def holds(self, *names: str) -> bool:
        return all(self.path(name).read_bytes() == CONTENTS[name] for name in names)

    async def until(self, met: Callable[[], bool], seconds: float = PATIENCE) -> None:
        async with asyncio.timeout(seconds):
            while not met():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def complete(self, pieces: frozenset[int] = ALL) -> None:
        await self.until(lambda: self.torrent.status().have >= pieces)
        await self.torrent.flush()

    async def event(self, kind: type, events: AsyncIterator[Event], seconds: float = PATIENCE) -> Event:
        async with asyncio.timeout(seconds):
            async for event in events:
                self.seen.append(event)
                if isinstance(event, kind):
                    return event
        raise AssertionError(f"no {kind.__name__} in {self.seen}")


@pytest.fixture
async def swarm(make_engine: MakeEngine, engines: int, tmp_path: Path) -> AsyncIterator[Swarm]:
    async with AsyncExitStack() as stack:
        yield Swarm(make_engine, tmp_path, stack, engines)


def pieces_of(name: str) -> frozenset[int]:
    span = next(span for span in TORRENT.layout.spans if span.path == name)
    return frozenset(span.pieces)


def piece_bytes(piece: int) -> bytes:
    place = TORRENT.layout.piece_range(piece)
    return CONTENTS[place.span.path][place.offset : place.offset + place.length]


NAMES = tuple(name for name, data in CONTENTS.items() if data)


async def test_a_peer_gets_every_byte_from_a_seeder(swarm: Swarm) -> None:
    seeder = await swarm.node(CONTENTS)
    peer = await swarm.node(peers=(seeder.engine.address,))
    assert peer.torrent.info_hash == TORRENT.info_hash
    await peer.complete()
    assert peer.holds(*NAMES)
    assert not peer.path("empty.txt").exists()
    assert not [path for path in peer.folder.rglob("*") if path.suffix == ".parts"]


async def test_status_counts_the_holders_of_each_piece(swarm: Swarm) -> None:
    seeder = await swarm.node(CONTENTS)
    assert seeder.torrent.status().have == ALL
    peer = await swarm.node(wanted=frozenset())
    assert peer.torrent.status().have == frozenset()
    assert peer.torrent.status().availability == (0,) * len(ALL)
    peer.torrent.connect(*seeder.engine.address)
    await peer.until(lambda: peer.torrent.status().availability == (1,) * len(ALL))
    # Availability and counts of connections are updated one after the other.
    await peer.until(lambda: (peer.torrent.status().peers, peer.torrent.status().seeds) == (1, 1))
    assert peer.torrent.status().downloaded == 0
    await seeder.torrent.remove()
    await peer.until(lambda: peer.torrent.status().peers == 0)
    assert peer.torrent.status().availability == (0,) * len(ALL)


async def test_status_counts_payload(swarm: Swarm) -> None:
    seeder = await swarm.node(CONTENTS)
    peer = await swarm.node(peers=(seeder.engine.address,))
    await peer.until(lambda: peer.torrent.status().downloaded >= TOTAL)
    await seeder.until(lambda: seeder.torrent.status().uploaded >= TOTAL)
    status = peer.torrent.status()
    assert status.downloaded - status.wasted == TOTAL
    assert (status.uploaded, status.banned) == (0, frozenset())


async def test_bytes_from_other_zones_are_counted_by_peers_with_a_zone(swarm: Swarm) -> None:
    seeder = await swarm.node(CONTENTS, zone="a")
    for zone, crossed in (("b", TOTAL), ("a", 0), ("", None)):
        peer = await swarm.node(zone=zone, peers=(seeder.engine.address,))
        await peer.complete()
        await peer.torrent.durable()
        assert peer.torrent.status().from_other_zones == crossed
        await peer.torrent.remove()


async def test_each_connection_is_reported_with_its_bytes(swarm: Swarm) -> None:
    seeder = await swarm.node(CONTENTS, zone="a")
    peer = await swarm.node(zone="b", peers=(seeder.engine.address,))
    await peer.complete()
    await seeder.until(lambda: seeder.torrent.status().uploaded >= TOTAL)
    [there], [here] = await peer.torrent.connections(), await seeder.torrent.connections()
    assert (there.kind, there.zone, there.progress, here.zone) == ("peer", "a", 1.0, "b")
    assert (there.peer_id, here.peer_id) == (seeder.engine.peer_id, peer.engine.peer_id)
    assert len(there.peer_id) == 40
    assert is_ours(there.peer_id)
    assert there.address.rpartition(":")[0] == seeder.engine.address[0]
    assert (there.downloaded, there.uploaded) == (here.uploaded, here.downloaded) == (TOTAL, 0)
    await peer.torrent.remove()
    assert await peer.torrent.connections() == ()


async def test_pieces_we_have_are_not_downloaded_again(swarm: Swarm) -> None:
    seeder = await swarm.node(CONTENTS)
    have = pieces_of("model-1.safetensors")
    peer = await swarm.node(CONTENTS, have=have, peers=(seeder.engine.address,))
    events = peer.torrent.events()
    await peer.complete()
    await peer.event(PieceVerified, events)
    assert peer.torrent.status().downloaded <= TOTAL - len(CONTENTS["model-1.safetensors"]) + (1 << 16)
    assert seeder.torrent.status().uploaded <= TOTAL - len(CONTENTS["model-1.safetensors"]) + (1 << 16)


async def test_existing_bytes_outside_of_have_are_overwritten(swarm: Swarm) -> None:
    peer = await swarm.node({name: bytes(len(data)) for name, data in CONTENTS.items()}, have=frozenset())
    assert peer.torrent.status().have == frozenset()
    seeder = await swarm.node(CONTENTS)
    peer.torrent.connect(*seeder.engine.address)
    await peer.complete()
    assert peer.holds(*NAMES)


async def test_only_wanted_files_are_downloaded(swarm: Swarm) -> None:
    seeder = await swarm.node(CONTENTS)
    first, second = "model-2.safetensors", "sub/model-3.safetensors"
    wanted = frozenset({TORRENT.file_indexes[3]})
    assert TORRENT.manifest.files[3].path == first
    peer = await swarm.node(wanted=wanted, peers=(seeder.engine.address,))
    await peer.complete(pieces_of(first))
    await asyncio.sleep(0.3)
    assert peer.torrent.status().have == pieces_of(first)
    assert not peer.path(second).exists() or peer.path(second).stat().st_size == 0
    assert peer.holds(first)


async def test_only_the_pieces_that_are_worth_it_come(swarm: Swarm) -> None:
    seeder = await swarm.node(CONTENTS)
    first, second = "model-2.safetensors", "sub/model-3.safetensors"
    some = frozenset({min(pieces_of(second)), *sorted(pieces_of(first))[2:5]})
    peer = await swarm.node(pieces=some, peers=(seeder.engine.address,))
    await peer.complete(some)
    await asyncio.sleep(0.3)
    assert peer.torrent.status().have == some


async def test_in_order_means_the_first_missing_pieces_first(swarm: Swarm) -> None:
    seeder = await swarm.node(CONTENTS)
    leecher = await swarm.node()
    leecher.torrent.set_sequential(True)
    events = leecher.torrent.events()
    leecher.torrent.connect(*seeder.engine.address)
    order = [(await leecher.event(PieceVerified, events)).piece for _ in ALL]
    # Several pieces are requested at a time, and hashed by several threads: on a busy machine one may be late. Without
    # order a piece comes a third of the torrent from its place on average. Of several engines the first one connects
    # before the others.
    for number in range(swarm.engines):
        own = [piece // swarm.engines for piece in order if piece % swarm.engines == number]
        assert sum(abs(place - piece) for place, piece in enumerate(own)) / len(own) < len(own) / 8
    leecher.torrent.set_sequential(False)


async def test_a_piece_that_is_brought_first_comes_before_those_in_order(swarm: Swarm) -> None:
    seeder = await swarm.node(CONTENTS)
    leecher = await swarm.node()
    leecher.torrent.set_sequential(True)
    last = max(ALL)
    leecher.torrent.prioritize(last)
    events = leecher.torrent.events()
    leecher.torrent.connect(*seeder.engine.address)
    order = [(await leecher.event(PieceVerified, events)).piece for _ in ALL]
    own = [piece for piece in order if piece % swarm.engines == last % swarm.engines]
    assert own.index(last) < len(own) / 4


async def test_events_report_each_piece_once_and_end_with_the_torrent(swarm: Swarm) -> None:
    seeder = await swarm.node(CONTENTS)
    peer = await swarm.node()
    events = peer.torrent.events()
    peer.torrent.connect(*seeder.engine.address)
    await peer.complete()
    await peer.torrent.remove()
    verified = [event.piece async for event in events if isinstance(event, PieceVerified)]
    assert sorted(verified) == sorted(ALL)


async def test_initial_pieces_give_no_event(swarm: Swarm) -> None:
    seeder = await swarm.node(CONTENTS)
    events = seeder.torrent.events()
    await asyncio.sleep(0.1)
    await seeder.torrent.remove()
    assert [event async for event in events] == []


async def test_after_a_flush_every_verified_piece_is_readable_and_durable(swarm: Swarm) -> None:
    seeder = await swarm.node(CONTENTS)
    peer = await swarm.node(peers=(seeder.engine.address,))
    await peer.until(lambda: len(peer.torrent.status().have) > 5)
    verified = peer.torrent.status().have
    await peer.torrent.flush()
    assert all(read_piece(peer, piece) == piece_bytes(piece) for piece in verified)
    assert await peer.torrent.durable() >= verified


async def test_durable_pieces_are_on_disk(swarm: Swarm) -> None:
    seeder = await swarm.node(CONTENTS)
    peer = await swarm.node(peers=(seeder.engine.address,))
    while len(durable := await peer.torrent.durable()) < len(ALL):
        assert all(read_piece(peer, piece) == piece_bytes(piece) for piece in durable)
        await asyncio.sleep(0.01)


def read_piece(node: Node, piece: int) -> bytes:
    place = TORRENT.layout.piece_range(piece)
    with node.path(place.span.path).open("rb") as file:
        file.seek(place.offset)
        return file.read(place.length)


async def test_a_link_that_is_turned_is_followed_while_it_is_served(swarm: Swarm) -> None:
    """As the node publishes a staged file: it moves the file, and turns the link that the engine opens."""
    seeder = await swarm.node(CONTENTS)
    peer = await swarm.node()
    for number, name in enumerate(NAMES):
        link = peer.path(name)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(swarm.folder / f"staged-{number}")
    peer.torrent.connect(*seeder.engine.address)
    await peer.complete()
    for name in NAMES:
        link, blob = peer.path(name), swarm.folder / f"blob-{name.replace('/', '-')}"
        link.readlink().rename(blob)
        fresh = link.with_name("fresh")
        fresh.symlink_to(blob)
        fresh.replace(link)
        assert blob.read_bytes() == CONTENTS[name]
    await seeder.torrent.remove()
    other = await swarm.node(peers=(peer.engine.address,))
    await other.complete()
    assert other.holds(*NAMES)


async def test_fed_pieces_are_checked_stored_and_served(swarm: Swarm) -> None:
    mirror = await swarm.node()
    events = mirror.torrent.events()
    peer = await swarm.node(peers=(mirror.engine.address,))
    assert all(await asyncio.gather(*(mirror.torrent.feed(piece, piece_bytes(piece)) for piece in ALL)))
    await mirror.torrent.flush()
    assert mirror.holds(*NAMES)
    assert mirror.torrent.status().downloaded == 0
    await peer.complete()
    assert peer.holds(*NAMES)
    assert await mirror.torrent.feed(3, b"is there already")
    await mirror.torrent.remove()
    assert {event.piece async for event in events if isinstance(event, PieceVerified)} == ALL


async def test_a_wrong_fed_piece_is_rejected_and_the_right_one_still_taken(swarm: Swarm) -> None:
    mirror = await swarm.node()
    events = mirror.torrent.events()
    right = piece_bytes(7)
    assert not await mirror.torrent.feed(7, right[:-1] + bytes([right[-1] ^ 1]))
    assert await mirror.event(PieceRejected, events) == PieceRejected(7)
    assert mirror.torrent.status().have == frozenset()
    assert await mirror.torrent.feed(7, right)
    assert await mirror.event(PieceVerified, events) == PieceVerified(7)


async def test_feeding_and_downloading_go_together(swarm: Swarm) -> None:
    seeder = await swarm.node(CONTENTS)
    peer = await swarm.node(peers=(seeder.engine.address,))
    for piece in sorted(ALL):
        assert await peer.torrent.feed(piece, piece_bytes(piece))
    await peer.complete()
    assert peer.holds(*NAMES)
    assert peer.torrent.status().banned == frozenset()


async def test_a_peer_with_wrong_bytes_is_banned_and_a_good_one_finishes(swarm: Swarm) -> None:
    wrong = {name: bytes(len(data)) for name, data in CONTENTS.items()}
    bad = await swarm.node(wrong, have=ALL)
    peer = await swarm.node(peers=(bad.engine.address,))
    events = peer.torrent.events()
    banned = await peer.event(PeerBanned, events)
    assert banned == PeerBanned(bad.engine.address[0])
    good = await swarm.node(CONTENTS)
    peer.torrent.connect(*good.engine.address)
    await peer.complete()
    assert peer.holds(*NAMES)
    assert peer.torrent.status().banned == {bad.engine.address[0]}
    await peer.until(lambda: peer.torrent.status().wasted > 0)
    await peer.torrent.remove()
    peer.seen += [event async for event in events]
    assert any(isinstance(event, PieceRejected) for event in peer.seen)


async def test_a_failing_disk_gives_one_event_and_the_torrent_added_again_finishes(swarm: Swarm) -> None:
    seeder = await swarm.node(CONTENTS)
    peer = await swarm.node()
    events = peer.torrent.events()
    obstacle = peer.folder / "staging"
    peer.folder.mkdir(exist_ok=True)
    if obstacle.exists():
        obstacle.rmdir()
    obstacle.write_text("a file where the folder should be")
    peer.torrent.connect(*seeder.engine.address)
    failure = await peer.event(DiskFailed, events)
    assert isinstance(failure, DiskFailed)
    assert (failure.path.startswith(str(obstacle)), failure.full) == (True, False), failure
    with pytest.raises(LocalResource):
        await peer.torrent.feed(0, piece_bytes(0))
    with pytest.raises(LocalResource):
        await peer.torrent.flush()
    obstacle.unlink()
    have = await peer.torrent.durable()
    await peer.torrent.remove()
    assert not [event async for event in events if isinstance(event, DiskFailed)]
    files = {peer.index(name): str(peer.path(name)) for name in NAMES}
    peer.torrent = await peer.engine.add(AddTorrent(TORRENT.raw, peer.folder, files, have=have))
    peer.torrent.connect(*seeder.engine.address)
    await peer.complete()
    assert peer.holds(*NAMES)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "small"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "p2pmodel-test", disk], check=False).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


async def test_a_full_disk_gives_an_event_and_the_torrent_added_again_finishes_with_free_space(
    swarm: Swarm, small_disk: Path
) -> None:
    seeder = await swarm.node(CONTENTS)
    peer = await swarm.engine()
    torrent = await peer.add(AddTorrent(TORRENT.raw, small_disk, {}))
    events = torrent.events()
    torrent.connect(*seeder.engine.address)
    async with asyncio.timeout(PATIENCE):
        failure = await anext(event async for event in events if isinstance(event, DiskFailed))
    assert failure.full
    with pytest.raises(NoSpace):
        await torrent.flush()
    assert await torrent.durable() < ALL
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)  # noqa: ASYNC221
    have = await torrent.durable()
    await torrent.remove()
    torrent = await peer.add(AddTorrent(TORRENT.raw, small_disk, {}, have=have))
    torrent.connect(*seeder.engine.address)
    await Node(peer, torrent, small_disk, TORRENT).complete()
    assert await torrent.durable() == ALL
    root = small_disk / TORRENT.manifest.commit
    assert all((root / name).read_bytes() == CONTENTS[name] for name in NAMES)
    await torrent.remove()
    await seeder.torrent.remove()


async def test_a_tracker_that_does_not_answer_gives_an_event(swarm: Swarm) -> None:
    peer = await swarm.node(trackers=(DEAD_TRACKER,))
    events = peer.torrent.events()
    failure = await peer.event(TrackerFailed, events)
    assert isinstance(failure, TrackerFailed)
    assert failure.url == DEAD_TRACKER
    assert "refused" in failure.message.lower()
    assert "<" not in failure.message


async def test_new_trackers_receive_an_announce_at_once(swarm: Swarm) -> None:
    peer = await swarm.node()
    events = peer.torrent.events()
    peer.torrent.set_trackers((DEAD_TRACKER,))
    failure = await peer.event(TrackerFailed, events)
    assert isinstance(failure, TrackerFailed)
    assert failure.url == DEAD_TRACKER


async def test_a_removed_torrent_lets_go(swarm: Swarm) -> None:
    seeder = await swarm.node(CONTENTS)
    await seeder.torrent.remove()
    await seeder.torrent.remove()
    assert not open_files_below(seeder.folder)
    assert seeder.holds(*NAMES)
    with pytest.raises(Unavailable):
        await seeder.torrent.flush()
    with pytest.raises(Unavailable):
        seeder.torrent.announce()
    again = await seeder.engine.add(AddTorrent(TORRENT.raw, seeder.folder, {}, have=ALL))
    assert again.status().have == ALL


def open_files_below(folder: Path) -> list[str]:
    found = []
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(fd.readlink()))
    return [path for path in found if path.startswith(str(folder))]


async def test_two_large_files_of_equal_content_complete_from_peers_and_by_feeding(swarm: Swarm) -> None:
    twin = os.urandom(5 * PIECE + 7)
    contents = {"a.safetensors": twin, "b.safetensors": twin, "c.safetensors": twin}
    torrent = parse(torrent_of(contents, piece_length=PIECE))
    everything = frozenset(range(torrent.layout.piece_count))
    seeder = await swarm.node(contents, metainfo=torrent, have=everything)
    peer, fed = await swarm.node(metainfo=torrent), await swarm.node(metainfo=torrent)
    peer.torrent.connect(*seeder.engine.address)
    async with asyncio.timeout(PATIENCE):
        for piece in reversed(range(torrent.layout.piece_count)):
            place = torrent.layout.piece_range(piece)
            assert await fed.torrent.feed(piece, twin[place.offset : place.offset + place.length])
    for node in (peer, fed):
        await node.complete(everything)
        assert all(node.path(name).read_bytes() == twin for name in contents)


async def test_the_same_torrent_twice_and_a_bad_one_are_refused(swarm: Swarm) -> None:
    node = await swarm.node()
    with pytest.raises(InvalidInput):
        await node.engine.add(AddTorrent(TORRENT.raw, node.folder, {}))
    with pytest.raises(BadTorrent):
        await node.engine.add(AddTorrent(b"d4:infod4:name1:xee", node.folder, {}))


async def test_a_magnet_gives_the_whole_torrent_and_leaves_no_state_behind(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = swarm.folder / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    seeder = await swarm.node(CONTENTS)
    engine = await swarm.engine()
    raw = await engine.fetch_metainfo(magnet_of(TORRENT), peers=(seeder.engine.address,), timeout=20)
    found = parse(raw)
    assert (found.info_hash, found.trees, found.manifest) == (TORRENT.info_hash, TORRENT.trees, TORRENT.manifest)
    assert list(temporary.iterdir()) == []
    assert seeder.torrent.status().uploaded == 0
    assert await seeder.engine.fetch_metainfo(magnet_of(TORRENT), timeout=1)
    peer = await engine.add(AddTorrent(raw, swarm.folder / "peer", {}, wanted=frozenset()))
    assert peer.info_hash == TORRENT.info_hash


async def test_a_magnet_without_peers_and_a_malformed_one(swarm: Swarm) -> None:
    engine = await swarm.engine()
    with pytest.raises(Unavailable, match=r"within 0\.3 seconds"):
        await engine.fetch_metainfo(magnet_of(TORRENT), timeout=0.3)
    with pytest.raises(InvalidInput):
        await engine.fetch_metainfo("magnet:?dn=x", timeout=0.3)


async def test_a_taken_port_is_refused(swarm: Swarm) -> None:
    engine = await swarm.engine()
    host, port = engine.address
    assert port > 0
    with pytest.raises(LocalResource, match=str(port)):
        async with swarm.make(EngineSettings(host=host, port=port)):
            pass


async def test_the_rate_limits_change_while_it_runs(swarm: Swarm) -> None:
    seeder = await swarm.node(CONTENTS)
    peer = await swarm.node(peers=(seeder.engine.address,))
    seeder.engine.limit(upload=1 << 30, download=0)
    peer.engine.limit(upload=0, download=0)
    await peer.complete()
    assert peer.holds(*NAMES)


async def test_an_engine_that_does_not_run_cannot_be_limited(make_engine: MakeEngine) -> None:
    with pytest.raises(Unavailable):
        make_engine(EngineSettings()).limit(upload=1, download=1)
