"""Several engines of a node as one, with engines in memory."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.errors import LocalResource, Unavailable
from p2pmodel.swarm.engine import AddTorrent, Engine, EngineSettings, PieceVerified, SwarmTorrent
from p2pmodel.swarm.memory.engine import MemoryEngine, MemoryNetwork
from p2pmodel.swarm.peer_ids import engine_number
from p2pmodel.swarm.split import torrent as split_torrent
from p2pmodel.swarm.split.engine import SplitEngine, divided
from p2pmodel.swarm.split.named_peers import further_port
from p2pmodel.swarm.torrents import parse
from tests.support.eventually import PATIENCE
from tests.support.torrent_files import torrent_of

PIECE = 1 << 16
CONTENTS = {"a.safetensors": os.urandom(21 * PIECE + 5), "b.safetensors": os.urandom(9 * PIECE)}
TORRENT = parse(torrent_of(CONTENTS, piece_length=PIECE))
ALL = frozenset(range(TORRENT.layout.piece_count))
TRACKER = "http://127.0.0.1:6969/announce"


class Rig:
    """Nodes in one memory network, each with a number of engines."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.network = MemoryNetwork()
        self.made: list[MemoryEngine] = []
        self._folder = folder
        self._stack = stack

    def _make(self, settings: EngineSettings) -> MemoryEngine:
        self.made.append(MemoryEngine(self.network, settings))
        return self.made[-1]

    async def engine(self, count: int, host: str = "10.0.0.1", port: int = 0, **settings: int) -> Engine:
        given = EngineSettings(host=host, port=port, **settings)  # type: ignore[arg-type]
        engine: Engine = self._make(given) if count == 1 else SplitEngine(given, count, self._make)
        return await self._stack.enter_async_context(engine)

    async def node(self, count: int, host: str, *, seeds: bool = False, **request: object) -> SwarmTorrent:
        engine = await self.engine(count, host)
        folder = self._folder / host
        folder.mkdir()
        files = {}
        for index, file in zip(TORRENT.file_indexes, TORRENT.manifest.files, strict=True):
            files[index] = file.path
            if seeds:
                (folder / file.path).write_bytes(CONTENTS[file.path])
        given = {"have": ALL if seeds else frozenset(), "trackers": (TRACKER,)} | request
        return await engine.add(AddTorrent(TORRENT.raw, folder, files, **given))  # type: ignore[arg-type]

    def whole(self, host: str) -> bool:
        return all((self._folder / host / name).read_bytes() == data for name, data in CONTENTS.items())


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        yield Rig(tmp_path, stack)


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not met():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("seeding", "fetching"), [(1, 4), (4, 1), (2, 4), (4, 2), (3, 2), (2, 3), (8, 4)])
async def test_nodes_with_different_numbers_of_engines_exchange_all_pieces(
    rig: Rig, seeding: int, fetching: int
) -> None:
    await rig.node(seeding, "10.0.0.1", seeds=True)
    first, second = await rig.node(fetching, "10.0.0.2"), await rig.node(seeding, "10.0.0.3")
    for torrent in (first, second):
        await until(lambda torrent=torrent: torrent.status().have == ALL)  # type: ignore[misc]
        await torrent.flush()
    assert rig.whole("10.0.0.2")
    assert rig.whole("10.0.0.3")


@pytest.mark.parametrize("count", [2, 4])
async def test_each_engine_downloads_the_pieces_with_its_number_and_no_other(rig: Rig, count: int) -> None:
    await rig.node(1, "10.0.0.1", seeds=True)
    torrent = await rig.node(count, "10.0.0.2")
    events = torrent.events()
    await until(lambda: torrent.status().have == ALL)
    own = [engine.torrents[TORRENT.info_hash] for engine in rig.made[1:]]
    for number, each in enumerate(own):
        assert engine_number(bytes.fromhex(each.peer_id)).number == number
        assert each.have == {piece for piece in ALL if piece % count == number}
        assert not {peer for peer in each.peers if peer in own}
    assert torrent.status().downloaded == sum(map(len, CONTENTS.values()))
    await torrent.remove()
    assert sorted([event.piece async for event in events if isinstance(event, PieceVerified)]) == sorted(ALL)


async def test_once_all_wanted_pieces_are_here_each_engine_serves_all(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split_torrent, "WHOLE_AFTER", 0.0)
    await rig.node(1, "10.0.0.1", seeds=True)
    torrent = await rig.node(2, "10.0.0.2", wanted=frozenset(TORRENT.file_indexes[:1]))
    events = torrent.events()
    wanted = frozenset(TORRENT.layout.spans[0].pieces)
    here = [engine.torrents for engine in rig.made[1:]]
    await until(lambda: all(t and t[TORRENT.info_hash].have == wanted for t in here))
    await until(lambda: torrent.status().have == wanted)
    await torrent.flush()
    assert await torrent.durable() == wanted
    size = sum(TORRENT.layout.piece_range(piece).length for piece in wanted)
    assert torrent.status().downloaded == size
    await torrent.remove()
    assert len([event async for event in events if isinstance(event, PieceVerified)]) == len(wanted)
    assert not any(here)


async def test_an_engine_that_cannot_join_again_holds_up_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_torrent, "WHOLE_AFTER", 0.0)

    async def refuse(self: MemoryEngine, request: AddTorrent) -> None:
        raise Unavailable("not now")

    torrent = await rig.node(2, "10.0.0.2")
    monkeypatch.setattr(MemoryEngine, "add", refuse)
    for piece in ALL:
        place = TORRENT.layout.piece_range(piece)
        assert await torrent.feed(piece, CONTENTS[place.span.path][place.offset : place.offset + place.length])
    await until(lambda: len(rig.made[0].torrents) == 0)
    await torrent.flush()
    assert torrent.status().have == await torrent.durable() == ALL
    await torrent.remove()


async def test_further_engines_take_the_next_ports_or_free_ones(rig: Rig) -> None:
    await rig.engine(1, port=further_port(6881, 2))
    await rig.engine(3, port=6881)
    taken = {port for _, port in rig.network.engines}
    assert taken >= {6881, 6885, 6886}
    assert len(taken) == 4
    with pytest.raises(LocalResource, match="6881"):
        await rig.engine(2, port=6881)
    assert len(rig.network.engines) == 4


async def test_a_limit_is_divided_and_no_limit_is_none_for_each(rig: Rig) -> None:
    engine = await rig.engine(4, upload_limit=4000)
    assert [each.limits for each in rig.made] == [(1000, 0)] * 4
    engine.limit(upload=0, download=400)
    assert [each.limits for each in rig.made] == [(0, 100)] * 4


@given(st.integers(8, 10**10), st.lists(st.integers(0, 10**10), min_size=1, max_size=8))
def test_shares_of_a_limit_never_exceed_it(limit: int, rates: list[int]) -> None:
    shares = divided(limit, rates)
    assert sum(shares) <= limit + len(rates), "1 byte a second at least"
    assert min(shares) >= 1


def test_an_engine_that_alone_is_busy_gets_nearly_the_whole_limit() -> None:
    rates = [0, 0, 0, 0]
    for _ in range(30):
        rates[2] = divided(1_000_000, rates)[2]
    assert rates[2] > 900_000
