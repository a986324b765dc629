"""What every swarm engine promises of web seeds: run against the real one and its in-memory twin."""

import asyncio
import base64
import ipaddress
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from p2pmodel.core.network.egress import Egress
from p2pmodel.swarm.engine import AddTorrent, Engine, EngineSettings, PieceRejected, SwarmTorrent, WebSeeds
from p2pmodel.swarm.libtorrent.engine import LibtorrentEngine
from p2pmodel.swarm.memory.engine import MemoryEngine, MemoryNetwork
from p2pmodel.swarm.split.engine import SplitEngine
from p2pmodel.swarm.torrents import Metainfo, parse
from tests.support.eventually import PATIENCE, eventually
from tests.support.torrent_files import torrent_of

PIECE = 1 << 16
CONTENTS = {
    "model-1.safetensors": os.urandom(40 * PIECE + 321),
    "model-2.safetensors": os.urandom(9 * PIECE),
    "sub/a name.txt": os.urandom(3 * PIECE + 1),
}
TORRENT = parse(torrent_of(CONTENTS, piece_length=PIECE))
ONE_FILE = parse(torrent_of({"model.safetensors": CONTENTS["model-1.safetensors"]}, piece_length=PIECE))
TOTAL = sum(map(len, CONTENTS.values()))
SERVER, ELSEWHERE = "127.0.0.3", "127.0.0.4"
HERE = Egress(frozenset({ipaddress.ip_network(SERVER)}))
"""A rule that admits the server alone."""


NO_SEEDS = WebSeeds()


@dataclass
class Server:
    """A web seed below /files that wants the password `secret`."""

    url: str = ""
    wrong: bool = False
    slow: bool = False
    redirect: str = ""
    asked: list[str] = field(default_factory=list)

    def of(self, metainfo: Metainfo, password: str = "secret") -> str:
        """The BEP 19 URL of a torrent."""
        nameless = f"{metainfo.manifest.commit}/" if metainfo is ONE_FILE else ""
        return self.url.replace("//", f"//p2pmodel:{password}@") + f"/files/{nameless}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        right = base64.b64encode(b"p2pmodel:secret").decode()
        if request.headers.get("Authorization") != f"Basic {right}":
            return web.Response(status=401)
        if self.redirect:
            raise web.HTTPFound(self.redirect + request.path)
        name = request.match_info["path"]
        data = CONTENTS.get(name, CONTENTS["model-1.safetensors"])
        part = data[request.http_range]
        start, last = request.http_range.start, request.http_range.stop - 1
        headers = {"Content-Range": f"bytes {start}-{last}/{len(data)}", "Content-Length": str(len(part))}
        response = web.StreamResponse(status=206, headers=headers)
        await response.prepare(request)
        for at in range(0, len(part), PIECE):
            block = part[at : at + PIECE]
            await response.write(bytes(len(block)) if self.wrong else block)
            if self.slow:
                await asyncio.sleep(0.2)
        return response


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    found = Server()
    app = web.Application()
    app.router.add_get("/files/{commit}/{path:.*}", found.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, SERVER, 0)
    await site.start()
    found.url = f"http://{SERVER}:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


@dataclass
class Rig:
    engine: Engine
    peer: Engine
    folder: Path

    async def add(self, metainfo: Metainfo = TORRENT, seeds: WebSeeds = NO_SEEDS) -> SwarmTorrent:
        files = {index: f"{index}.part" for index in metainfo.file_indexes}
        return await self.engine.add(AddTorrent(metainfo.raw, self.folder, files, web_seeds=seeds))

    async def seed(self) -> None:
        """Seed TORRENT at `peer`."""
        files = {index: f"{index}.whole" for index in TORRENT.file_indexes}
        for index, file in zip(TORRENT.file_indexes, TORRENT.manifest.files, strict=True):
            (self.folder / files[index]).write_bytes(CONTENTS[file.path])
        have = frozenset(range(TORRENT.layout.piece_count))
        await self.peer.add(AddTorrent(TORRENT.raw, self.folder, files, have=have))


@pytest.fixture(params=["memory", "libtorrent", "4 libtorrent"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    network, several = MemoryNetwork(), request.param.startswith("4")

    def one(settings: EngineSettings) -> Engine:
        return MemoryEngine(network, settings) if request.param == "memory" else LibtorrentEngine(settings)

    async with AsyncExitStack() as stack:
        settings = EngineSettings(host="127.0.0.2", zone="a")
        engine = await stack.enter_async_context(SplitEngine(settings, 4, one) if several else one(settings))
        peer = await stack.enter_async_context(one(EngineSettings(host=ELSEWHERE, zone="a")))
        yield Rig(engine, peer, tmp_path)


def received(torrent: SwarmTorrent) -> int:
    status = torrent.status()
    return status.downloaded - status.wasted


async def complete(torrent: SwarmTorrent, metainfo: Metainfo) -> None:
    everything = frozenset(range(metainfo.layout.piece_count))
    await eventually(lambda: torrent.status().have == everything, what="all pieces came")
    await torrent.flush()


@pytest.mark.parametrize("metainfo", [TORRENT, ONE_FILE], ids=["files", "one file"])
async def test_all_files_come_from_a_web_seed(rig: Rig, server: Server, metainfo: Metainfo) -> None:
    torrent = await rig.add(metainfo)
    torrent.set_web_seeds(WebSeeds((server.of(metainfo),), HERE))
    await complete(torrent, metainfo)
    for index, file in zip(metainfo.file_indexes, metainfo.manifest.files, strict=True):
        expected = CONTENTS.get(file.path, CONTENTS["model-1.safetensors"])
        assert (rig.folder / f"{index}.part").read_bytes() == expected
    await eventually(lambda: received(torrent) == metainfo.manifest.total_size, what="the counters are updated")
    await torrent.durable()
    assert torrent.status().from_other_zones == 0


async def test_web_seeds_that_a_torrent_is_added_with_follow_their_rule(rig: Rig, server: Server) -> None:
    await rig.add(seeds=WebSeeds((server.of(TORRENT),), Egress()))
    await asyncio.sleep(1)
    assert not server.asked


@pytest.mark.parametrize("at_first", [True, False])
async def test_a_web_seed_is_a_seeder_with_all_pieces_until_it_is_dropped(
    rig: Rig, server: Server, *, at_first: bool
) -> None:
    server.slow = True
    seeds = WebSeeds((server.of(TORRENT),), HERE)
    torrent = await rig.add(seeds=seeds if at_first else NO_SEEDS)
    if not at_first:
        torrent.set_web_seeds(seeds)
    await eventually(lambda: torrent.status().peers == torrent.status().seeds == 1, what="it is connected")
    await eventually(lambda: all(torrent.status().availability), what="it has all pieces")
    await eventually(lambda: torrent.status().downloaded > 0, what="it sends")
    found = {(each.kind, each.address, each.zone) for each in await torrent.connections()}
    assert found == {("seeder", server.url, "a")}
    torrent.set_web_seeds(WebSeeds((), HERE))
    await eventually(lambda: not torrent.status().peers, what="its connection has ended")
    await asyncio.sleep(0.5)  # a request was on its way
    asked = len(server.asked)
    await asyncio.sleep(1)
    assert len(server.asked) == asked
    assert not any(torrent.status().availability)
    server.slow = False
    torrent.set_web_seeds(WebSeeds((server.of(TORRENT),), HERE))
    await complete(torrent, TORRENT)


async def test_wrong_bytes_of_a_web_seed_are_rejected(rig: Rig, server: Server) -> None:
    server.wrong = True
    torrent = await rig.add()
    events = torrent.events()
    torrent.set_web_seeds(WebSeeds((server.of(TORRENT),), HERE))
    async with asyncio.timeout(PATIENCE):
        async for event in events:
            if isinstance(event, PieceRejected):
                break
    assert not torrent.status().have


async def test_a_web_seed_that_refuses_the_password_sends_nothing(rig: Rig, server: Server) -> None:
    torrent = await rig.add()
    torrent.set_web_seeds(WebSeeds((server.of(TORRENT, "wrong"),), HERE))
    await eventually(lambda: bool(server.asked), what="it is asked")
    await asyncio.sleep(0.5)
    assert torrent.status().downloaded == 0


async def test_a_redirect_leads_to_no_address_that_the_rule_refuses(rig: Rig, server: Server) -> None:
    seen: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readline())
        writer.close()

    async with await asyncio.start_server(note, ELSEWHERE, 0) as inside:
        server.redirect = f"http://{ELSEWHERE}:{inside.sockets[0].getsockname()[1]}"
        torrent = await rig.add()
        torrent.set_web_seeds(WebSeeds((server.of(TORRENT),), HERE))
        await eventually(lambda: bool(server.asked), what="it is asked")
        await asyncio.sleep(2)
        assert not seen
        # The rule is what prevents it: libtorrent follows redirects.
        if not isinstance(rig.engine, MemoryEngine):
            torrent.set_web_seeds(WebSeeds((), HERE))
            torrent.set_web_seeds(WebSeeds((server.of(TORRENT),), HERE | Egress.parse([ELSEWHERE])))
            await eventually(lambda: bool(seen), what="a redirect that is admitted is followed")


async def test_an_address_that_the_rule_refuses_is_not_asked(rig: Rig, server: Server) -> None:
    torrent = await rig.add()
    torrent.set_web_seeds(WebSeeds((server.of(TORRENT),), Egress()))
    await asyncio.sleep(1)
    assert not server.asked


async def test_the_rule_is_not_for_peers(rig: Rig, server: Server) -> None:
    await rig.seed()
    torrent = await rig.add()
    torrent.set_web_seeds(WebSeeds((server.of(TORRENT, "wrong"),), HERE))
    await eventually(lambda: bool(server.asked), what="it is asked")
    torrent.connect(*rig.peer.address)
    await complete(torrent, TORRENT)
