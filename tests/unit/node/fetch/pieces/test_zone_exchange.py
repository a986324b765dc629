"""The exchange with other zones: only right pieces are sent and taken, and no node holds another one up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from p2pmodel.coordinator.leases.demand import Crossing, Demand
from p2pmodel.core.content.bitfield import bits_of
from p2pmodel.core.network.egress import PUBLIC, Egress
from p2pmodel.core.network.listeners import listening
from p2pmodel.core.pace import Pace
from p2pmodel.errors import Unavailable
from p2pmodel.node.fetch.pieces import zone_exchange
from p2pmodel.node.fetch.pieces.piece_server import serving_pieces
from p2pmodel.node.fetch.pieces.zone_exchange import MOST_MISSES, ZoneExchange
from tests.support.hub_snapshot import HubSnapshot, snapshot_of
from tests.support.node_swarm import Swarm, assert_nothing_runs

HERE = Egress.parse(["127.0.0.0/8"]).in_cluster("127.0.0.1")


class Rig:
    """Two nodes with the same torrent; `data` has its pieces."""

    def __init__(self, root: Path, snapshot: HubSnapshot | None = None) -> None:
        swarm = Swarm(root, snapshot)
        self.metainfo = swarm.metainfo
        layout, files = self.metainfo.layout, self.metainfo.manifest.files
        self.data = {}
        for piece in range(layout.piece_count):
            place = layout.piece_range(piece)
            whole = bytes(swarm.snapshot.contents[files[place.span.index].path])
            self.data[piece] = whole[place.offset : place.offset + place.length]
        self.now = 0.0
        self.notes: list[str] = []
        self.server = ZoneExchange(self.metainfo, "a", upload=Pace(), note=self.notes.append)
        self.client = ZoneExchange(self.metainfo, "b", upload=Pace(), clock=lambda: self.now)

    def crossing(self, piece: int, **fields: str) -> Crossing:
        known = {"address": f"127.0.0.1:{self.server.query['pieces']}", "token": self.server.fill(NOTHING)[1]}
        return Crossing(piece, **(known | fields))


NOTHING = Demand(0, from_seeders=True)


@asynccontextmanager
async def exchange(root: Path) -> AsyncIterator[Rig]:
    rig = Rig(root)
    await rig.server.open("127.0.0.1", 0)
    rig.client.trust("http://127.0.0.1:6969", HERE)
    try:
        yield rig
    finally:
        await rig.client.close()
        await rig.server.close()
        await assert_nothing_runs()


async def test_a_piece_comes_from_memory_or_from_its_file(tmp_path: Path) -> None:
    async with exchange(tmp_path) as rig:
        rig.server.stored.keep(1, rig.data[1])
        assert await rig.client.read(rig.crossing(1)) == rig.data[1]
        place = rig.metainfo.layout.piece_range(2)
        (tmp_path / str(place.span.index)).write_bytes(bytes(place.offset) + rig.data[2])
        rig.server.stored.read_from(lambda: frozenset({2}), lambda index: tmp_path / str(index))
        assert await rig.client.read(rig.crossing(2)) == rig.data[2]
        assert rig.server.stored.held() == bits_of([1, 2])
        assert rig.client.received == len(rig.data[1]) + len(rig.data[2])


async def test_pieces_that_are_not_here_are_asked_for_again_and_then_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zone_exchange, "PAUSE", 0.0)
    async with exchange(tmp_path) as rig:
        for attempt in range(MOST_MISSES):
            assert (rig.client.unreachable == []) is (attempt < MOST_MISSES)
            with pytest.raises(Unavailable):
                await rig.client.read(rig.crossing(0))
        assert rig.client.unreachable == [rig.crossing(0).address]


async def test_wrong_bytes_a_wrong_token_and_a_dead_node_count_as_unreachable_for_a_while(tmp_path: Path) -> None:
    async with exchange(tmp_path) as rig:
        rig.server.stored.keep(0, bytes(len(rig.data[0])))
        if rig.data[0] == bytes(len(rig.data[0])):
            rig.server.stored.keep(0, b"x" * len(rig.data[0]))
        for crossing in (rig.crossing(0), rig.crossing(1, token="other"), rig.crossing(1, address="127.0.0.1:1")):
            with pytest.raises(Unavailable):
                await rig.client.read(crossing)
            assert crossing.address in rig.client.unreachable
            rig.now += zone_exchange.AVOIDED_FOR
            assert rig.client.unreachable == []


async def test_addresses_outside_the_rule_are_not_connected_to(tmp_path: Path) -> None:
    async with exchange(tmp_path) as rig:
        rig.client.trust("http://203.0.113.5:6969", PUBLIC)
        with pytest.raises(Unavailable, match="is not allowed"):
            await rig.client.read(rig.crossing(0))


async def test_a_node_beside_the_coordinator_is_reached_where_the_coordinator_is(tmp_path: Path) -> None:
    async with exchange(tmp_path) as rig:
        rig.server.stored.keep(0, rig.data[0])
        assert await rig.client.read(rig.crossing(0, address=f":{rig.server.query['pieces']}")) == rig.data[0]


async def test_the_transfers_of_a_node_share_one_port(tmp_path: Path) -> None:
    """Firewalls admit one port, and each transfer is at it until it closes."""
    both = [Rig(tmp_path), Rig(tmp_path, snapshot_of({"weights.bin": b"other" * 60_000}))]
    async with serving_pieces("127.0.0.1", 0, zone="a") as shared:
        for rig in both:
            await rig.server.open("127.0.0.1", None, shared)
            rig.client.trust("http://127.0.0.1:6969", HERE)
            rig.server.stored.keep(0, rig.data[0])
        assert both[0].server.query == both[1].server.query == {"zone": "a", "pieces": str(shared.port)}
        assert both[0].data[0] != both[1].data[0]
        for rig in both:
            assert await rig.client.read(rig.crossing(0)) == rig.data[0]
            await rig.server.close()
            with pytest.raises(Unavailable, match="HTTP 401"):
                await rig.client.read(rig.crossing(0))
            await rig.client.close()
    await assert_nothing_runs()


async def test_a_port_that_is_taken_leaves_the_node_out(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    taken = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    async with taken:
        port = taken.sockets[0].getsockname()[1]
        with listening("127.0.0.1", port):
            await rig.server.open("127.0.0.1", port)
    assert rig.server.query == {}
    assert rig.server.fill(NOTHING)[0] == 0
    assert any("no pieces are served to other zones" in str(note) for note in rig.notes)
    await rig.server.close()
