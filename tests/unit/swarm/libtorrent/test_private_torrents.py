"""The real engine demands the right certificate of each peer of a private torrent."""

import asyncio
import datetime as dt
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from p2pmodel.swarm.engine import AddTorrent, Admissions, EngineSettings, SwarmCertificate, SwarmTorrent
from p2pmodel.swarm.libtorrent.engine import LibtorrentEngine
from p2pmodel.swarm.torrents import parse
from tests.support.eventually import PATIENCE
from tests.support.swarm_certificates import NOW, certificate_for, new_authority
from tests.support.torrent_files import COMMIT, torrent_of

CONTENTS = {"a": b"{}", "model.safetensors": os.urandom(500_000)}
SIZE = sum(map(len, CONTENTS.values()))
OURS, OTHER = new_authority("ours"), new_authority("other")
METAINFO = parse(torrent_of(CONTENTS, authority=OURS.pem.decode()))
ALL = frozenset(range(METAINFO.layout.piece_count))
HOSTS = Admissions(frozenset(f"127.0.6.{number}" for number in range(1, 9)))
WRONG: dict[str, Callable[[], SwarmCertificate]] = {
    "another commit": lambda: certificate_for(OURS, "b" * 40),
    "another authority": lambda: certificate_for(OTHER, COMMIT),
    "expired": lambda: certificate_for(OURS, COMMIT, now=NOW - dt.timedelta(hours=2), seconds=60),
    "the node alone": lambda: certificate_for(OURS, "gpu001"),
}


async def test_peers_with_wrong_certificates_get_and_give_no_byte(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:

        async def peer(number: int, certificate: SwarmCertificate, *, seeds: bool = False) -> SwarmTorrent:
            engine = await stack.enter_async_context(LibtorrentEngine(EngineSettings(host=f"127.0.6.{number}")))
            folder = tmp_path / str(number)
            folder.mkdir()
            files = {}
            for index, file in zip(METAINFO.file_indexes, METAINFO.manifest.files, strict=True):
                files[index] = str(index)
                if seeds:
                    (folder / files[index]).write_bytes(CONTENTS[file.path])
            have = ALL if seeds else frozenset[int]()
            torrent = await engine.add(
                AddTorrent(METAINFO.raw, folder, files, have=have, certificate=certificate, admissions=HOSTS)
            )
            addresses.append(engine.private_address)
            return torrent

        addresses: list[tuple[str, int]] = []
        seeder = await peer(1, certificate_for(OURS, COMMIT), seeds=True)
        wrong = [await peer(2 + number, make()) for number, make in enumerate(WRONG.values())]
        rogue = await peer(7, certificate_for(OTHER, COMMIT), seeds=True)
        node = await peer(8, certificate_for(OURS, COMMIT))
        node.connect(*addresses[-2])
        for each in wrong:
            each.connect(*addresses[0])
        await asyncio.sleep(1)  # for their handshakes; the node connects to the right one only now
        node.connect(*addresses[0])
        async with asyncio.timeout(PATIENCE):
            while node.status().have != ALL or seeder.status().uploaded < SIZE:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        got = dict(zip(WRONG, (each.status().downloaded for each in wrong), strict=True))
        assert got == dict.fromkeys(WRONG, 0)
        assert rogue.status().uploaded == 0
        assert seeder.status().uploaded == SIZE
