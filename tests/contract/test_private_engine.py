"""What every swarm engine promises of private swarms: run against the real one and its in-memory twin."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from p2pmodel.errors import InvalidInput, Unavailable
from p2pmodel.swarm.engine import AddTorrent, Admissions, Engine, EngineSettings, SwarmTorrent
from p2pmodel.swarm.libtorrent.engine import LibtorrentEngine
from p2pmodel.swarm.memory.engine import MemoryEngine, MemoryNetwork
from p2pmodel.swarm.torrents import Metainfo, parse
from tests.support.eventually import PATIENCE
from tests.support.swarm_certificates import certificate_for, new_authority
from tests.support.torrent_files import COMMIT, torrent_of

PIECE = 1 << 16
CONTENTS = {"config.json": b"{}", "model.safetensors": os.urandom(40 * PIECE + 321)}
SIZE = sum(map(len, CONTENTS.values()))
AUTHORITY = new_authority()
PRIVATE = parse(torrent_of(CONTENTS, piece_length=PIECE, authority=AUTHORITY.pem.decode()))
PUBLIC = parse(torrent_of(CONTENTS, piece_length=PIECE))
ALL = frozenset(range(PRIVATE.layout.piece_count))


@dataclass
class Rig:
    """Starts engines on 127.0.0.x, and stops them at the end."""

    make: Callable[[EngineSettings], Engine]
    folder: Path
    stack: AsyncExitStack

    async def engine(self, host: str, **settings: int) -> Engine:
        return await self.stack.enter_async_context(self.make(EngineSettings(host=host, **settings)))  # type: ignore[arg-type]

    async def add(self, engine: Engine, metainfo: Metainfo, *, seeds: bool, **request: object) -> SwarmTorrent:
        folder = self.folder / engine.address[0] / metainfo.info_hash[:8]
        folder.mkdir(parents=True)
        files = {}
        for index, file in zip(metainfo.file_indexes, metainfo.manifest.files, strict=True):
            files[index] = f"{index}.part"
            if seeds:
                (folder / files[index]).write_bytes(CONTENTS[file.path])
        have = ALL if seeds else frozenset[int]()
        return await engine.add(AddTorrent(metainfo.raw, folder, files, have=have, **request))  # type: ignore[arg-type]

    async def member(self, engine: Engine, *hosts: str, seeds: bool = False) -> SwarmTorrent:
        """A torrent of the private swarm with a certificate, that admits `hosts`."""
        certificate = certificate_for(AUTHORITY, COMMIT)
        admissions = Admissions(frozenset(hosts))
        return await self.add(engine, PRIVATE, seeds=seeds, certificate=certificate, admissions=admissions)


@pytest.fixture(params=["memory", "libtorrent"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    network = MemoryNetwork()
    async with AsyncExitStack() as stack:
        make = LibtorrentEngine if request.param == "libtorrent" else lambda settings: MemoryEngine(network, settings)
        yield Rig(make, tmp_path, stack)


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not met():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_admitted_nodes_exchange_and_others_get_no_byte(rig: Rig) -> None:
    seeder, node, stranger = [await rig.engine(f"127.0.5.{number}") for number in (1, 2, 3)]
    seeding = await rig.member(seeder, "127.0.5.2", seeds=True)
    getting = await rig.member(node, "127.0.5.1")
    shut_out = await rig.member(stranger, "127.0.5.1")
    for torrent in (shut_out, getting):
        torrent.connect(*seeder.private_address)
    await until(lambda: getting.status().have == ALL)
    await until(lambda: seeding.status().uploaded == SIZE)
    assert shut_out.status().downloaded == 0


async def test_an_address_that_is_taken_out_is_disconnected(rig: Rig) -> None:
    seeder, node = await rig.engine("127.0.5.4"), await rig.engine("127.0.5.5", download_limit=4 * PIECE)
    seeding = await rig.member(seeder, "127.0.5.5", seeds=True)
    getting = await rig.member(node, "127.0.5.4")
    getting.connect(*seeder.private_address)
    await until(lambda: seeding.status().peers == 1)
    seeding.admit(Admissions(frozenset({"127.0.5.5"}), barred=frozenset({"127.0.5.5"})))
    await until(lambda: seeding.status().peers == 0 and getting.status().peers == 0)


async def test_a_public_swarm_of_the_same_engine_admits_all(rig: Rig) -> None:
    seeder, node = await rig.engine("127.0.5.6"), await rig.engine("127.0.5.7")
    await rig.member(seeder, seeds=True)
    await rig.add(seeder, PUBLIC, seeds=True)
    getting = await rig.add(node, PUBLIC, seeds=False)
    getting.connect(*seeder.address)
    await until(lambda: getting.status().have == ALL)
    with pytest.raises(InvalidInput, match="private swarms alone"):
        getting.admit(Admissions())


async def test_a_private_torrent_needs_a_certificate(rig: Rig) -> None:
    engine = await rig.engine("127.0.5.8")
    with pytest.raises(Unavailable, match="no private swarm"):
        _ = engine.private_address
    with pytest.raises(InvalidInput, match="without a certificate"):
        await rig.add(engine, PRIVATE, seeds=False)
