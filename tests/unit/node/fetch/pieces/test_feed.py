"""Feeding orphan pieces from the mirrors: how many at a time, what a failure does, and how it ends."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from p2pmodel.coordinator.leases.demand import Grant
from p2pmodel.core.content.bitfield import pieces_of
from p2pmodel.core.content.layout import piece_length_for
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.network.connections import PeerConnection
from p2pmodel.errors import AccessDenied, NoSpace, P2PModelError, Unavailable, WrongBytes
from p2pmodel.node.fetch.pieces import feed as piece_feed
from p2pmodel.node.fetch.pieces import lease_strategy, orphan_strategy
from p2pmodel.node.fetch.pieces.delivery_clock import DeliveryClock
from p2pmodel.node.fetch.pieces.feed import PieceFeed
from p2pmodel.node.fetch.pieces.lease_strategy import LeaseStrategy
from p2pmodel.node.fetch.pieces.orphan_strategy import OrphanPieces, OrphanRules, OrphanStrategy
from p2pmodel.swarm.engine import SwarmStatus
from p2pmodel.swarm.metainfo import Metainfo
from p2pmodel.swarm.peer_ids import new_peer_id
from tests.support.eventually import PATIENCE, eventually
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_swarm import Swarm, assert_nothing_runs

PIECE = piece_length_for(0)
FILES = {"a.bin": bytes(3 * PIECE), "b.bin": b"b" * PIECE, "config.json": b"{}"}
PIECES = 5
LIMIT = 2


class FakeTorrent:
    """Accepts fed pieces by default. No peer is connected, unless `availability` is set."""

    def __init__(self) -> None:
        self.availability: tuple[int, ...] = ()
        self.downloaded = self.download_rate = 0
        self.met: list[PeerConnection] = []
        self.fed: list[int] = []
        self.data: dict[int, bytes] = {}
        self.answers: dict[int, list[bool | P2PModelError]] = {}
        """What the next calls for a piece answer or raise."""

    def status(self) -> SwarmStatus:
        peers, rate = len(self.availability), self.download_rate
        return SwarmStatus(frozenset(), self.availability, peers, 0, self.downloaded, 0, 0, rate, 0)

    async def connections(self) -> tuple[PeerConnection, ...]:
        return tuple(self.met)

    async def feed(self, piece: int, data: bytes) -> bool:
        await asyncio.sleep(0)
        self.fed.append(piece)
        answer = self.answers[piece].pop(0) if self.answers.get(piece) else True
        if isinstance(answer, P2PModelError):
            raise answer
        if answer:
            self.data[piece] = data
        return answer


class FakeOrigin:
    """Hands out the snapshot's bytes while `open` is set; counts how many reads run side by side."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, int]] = []
        self.at_once = 0
        self.most_at_once = 0
        self.failures: list[Exception] = []
        self.refused: dict[str, P2PModelError] = {}
        """What no mirror has right, and the error that says so."""
        self.open = asyncio.Event()
        self.open.set()

    async def read(
        self,
        manifest: Manifest,
        file: ManifestFile,
        offset: int,
        length: int,
        *,
        accept: Callable[[bytes], bool] | None,
    ) -> bytes:
        self.asked.append((file.path, offset, length))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0.001)
            await self.open.wait()
            if self.failures:
                raise self.failures.pop(0)
            if file.path in self.refused:
                raise self.refused[file.path]
            data = FILES[file.path][offset : offset + length]
            assert accept is not None
            assert accept(data)
            assert not accept(data[1:] + b"?")
            return data
        finally:
            self.at_once -= 1


class FakeSeeders(FakeOrigin):
    """Seeders with a fixed `usable`, in contrast to real ones."""

    def __init__(self, *, usable: bool) -> None:
        super().__init__()
        self.usable = usable
        self.received = 0


class Missing(AbstractSet[int]):
    """A live view of the pieces that the rig misses."""

    def __init__(self, rig: "Rig") -> None:
        self._rig = rig

    def __contains__(self, piece: object) -> bool:
        return piece in self._rig.missing()

    def __iter__(self) -> Iterator[int]:
        return iter(self._rig.missing())

    def __len__(self) -> int:
        return len(self._rig.missing())

    _from_iterable = frozenset


def mean_leases(metainfo: Metainfo) -> LeaseStrategy:
    return LeaseStrategy(metainfo.manifest.total_size / metainfo.layout.piece_count)


class Rig:
    """A feed between the two fakes. What the engine has taken is no longer needed, unless `also_needed`."""

    def __init__(
        self, root: Path, grace: float = 0.0, *, mirrors: bool = True, seeders: bool = False, bound: float = 60.0
    ) -> None:
        self.metainfo = Swarm(root, snapshot_of(FILES)).metainfo
        self.torrent = FakeTorrent()
        self.origin = FakeOrigin()
        self.seeders = FakeSeeders(usable=seeders)
        self.unneeded: set[int] = set()
        self.bad: list[int] = []
        self.engine_is_silent = False
        self.http_only = False
        pieces = OrphanPieces(PIECES, "me", OrphanRules(grace=grace, limit=LIMIT), time.monotonic())
        self.clock = DeliveryClock(bound, time.monotonic())
        self.feed = PieceFeed(
            self.torrent,  # type: ignore[arg-type]
            self.metainfo,
            Missing(self),
            origin=self.origin if mirrors else None,
            seeders=self.seeders,
            orphans=OrphanStrategy(self.torrent, pieces),
            leases=mean_leases(self.metainfo),
            clock=self.clock,
            on_bad_piece=self.bad.append,
            http_only=lambda: self.http_only,
        )

    def missing(self) -> frozenset[int]:
        verified = set() if self.engine_is_silent else self.torrent.data.keys()
        return frozenset(range(PIECES)) - verified - self.unneeded

    def grant(self, *pieces: int, peers: int = 3, refused: bool = False, late: bool = False) -> None:
        """Send the feed a grant, as the coordinator does after a demand."""
        self.feed.demand()
        self.feed.take(Grant(pieces, peers, refused=refused), late=late)

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        await eventually(condition, what=what)

    async def until_fed(self, pieces: Iterable[int] = range(PIECES)) -> None:
        await self.until(lambda: self.torrent.data.keys() >= set(pieces), f"pieces fed, but {self.torrent.fed}")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.feed.run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr(piece_feed, "TICK", 0.01)
    monkeypatch.setattr(piece_feed, "RETRY_AFTER", 0.15)
    monkeypatch.setattr(lease_strategy, "CONNECT_WITHIN", 0.0)
    return Rig(tmp_path)


@pytest.mark.parametrize(
    ("availability", "last"), [((), False), ((1, 1, 1, 1, 1), True), ((1, 1, 0, 1, 1), False), ((3, 1, 1, 1, 2), True)]
)
async def test_the_last_pieces_are_those_that_peers_have(
    rig: Rig, availability: tuple[int, ...], *, last: bool
) -> None:
    rig.torrent.availability = availability
    rig.feed.demand()
    assert rig.clock.last == last
    rig.unneeded = set(range(PIECES))
    rig.feed.demand()
    assert not rig.clock.last


async def test_every_piece_is_fed_once_with_a_bounded_number_in_flight(rig: Rig) -> None:
    async with rig.running():
        await rig.until_fed()
        await asyncio.sleep(0.05)
    assert sorted(rig.torrent.fed) == list(range(PIECES))
    assert rig.origin.most_at_once == LIMIT
    layout = rig.metainfo.layout
    expected = [layout.piece_range(piece) for piece in range(PIECES)]
    assert sorted(rig.origin.asked) == sorted((p.span.path, p.offset, p.length) for p in expected)
    assert rig.feed.fed == set(range(PIECES))
    assert rig.feed.failure is None


async def test_a_failure_is_stored_pauses_all_and_is_cleared_by_the_next_success(rig: Rig) -> None:
    rig.origin.failures = [Unavailable("m0 is down"), Unavailable("m0 is down")]
    async with rig.running():
        await rig.until(lambda: rig.feed.failure is not None and not rig.feed.active, "both reads failed")
        assert str(rig.feed.failure) == "m0 is down"
        await asyncio.sleep(0.05)
        assert len(rig.origin.asked) == 2, "a request in spite of the pause"
        await rig.until_fed()
        await rig.until(lambda: rig.feed.failure is None, "the failure is forgotten")
    assert sorted(rig.torrent.fed) == list(range(PIECES))


async def test_a_file_that_no_mirror_has_right_is_left_alone_and_the_others_come(rig: Rig) -> None:
    rig.origin.refused = {"b.bin": WrongBytes("mirror m0", "b.bin", "sha256 aa", "an HTML page")}
    async with rig.running():
        await rig.until(lambda: rig.feed.failure is not None, "b.bin is refused")
        await rig.until_fed([0, 1, 2, 4])
        assert isinstance(rig.feed.failure, WrongBytes), "the success of others hides it"
        assert [path for path, _, _ in rig.origin.asked].count("b.bin") == 1
        rig.origin.refused.clear()
        await rig.until_fed()
        await rig.until(lambda: rig.feed.failure is None, "the failure is forgotten")


@pytest.mark.parametrize("answer", [False, Unavailable("the engine does not answer"), NoSpace("full")])
async def test_a_piece_that_the_engine_did_not_take_is_pulled_again(rig: Rig, answer: bool | P2PModelError) -> None:
    rig.torrent.answers[3] = [answer]
    async with rig.running():
        await rig.until(lambda: 3 in rig.torrent.fed, "piece 3 is fed")
        await rig.until_fed()
    assert rig.torrent.fed.count(3) == 2
    assert rig.torrent.data[3] == FILES["b.bin"]


async def test_a_piece_that_came_from_a_peer_meanwhile_is_not_fed(rig: Rig) -> None:
    rig.origin.open.clear()
    async with rig.running():
        await rig.until(lambda: rig.origin.at_once == LIMIT, "two pieces are asked for")
        rig.unneeded = set(range(PIECES))
        rig.origin.open.set()
        await rig.until(lambda: not rig.feed.active, "the reads end")
    assert rig.torrent.fed == []
    assert rig.feed.fed == set()


async def test_a_pull_ends_early_if_a_peer_gets_the_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piece_feed, "TICK", 0.01)
    rig = Rig(tmp_path, grace=0.2)
    rig.torrent.availability = (0,) * PIECES
    rig.origin.open.clear()
    async with rig.running():
        await rig.until(lambda: rig.origin.at_once == LIMIT, "pieces are asked for")
        rig.torrent.availability = (1,) * PIECES
        await rig.until(lambda: not rig.feed.active, "the reads are given up")
        rig.origin.open.set()
        await asyncio.sleep(0.05)
    assert rig.torrent.fed == []
    assert len(rig.origin.asked) == LIMIT


async def test_a_piece_is_fed_once_even_before_the_engine_reports_it(rig: Rig) -> None:
    rig.engine_is_silent = True
    async with rig.running():
        await rig.until_fed()
        await asyncio.sleep(0.05)
    assert sorted(rig.torrent.fed) == list(range(PIECES))


async def test_a_cancel_ends_all_tasks(rig: Rig) -> None:
    rig.origin.open.clear()
    async with rig.running():
        await rig.until(lambda: rig.feed.active, "a piece is asked for")
    assert not rig.feed.active
    assert rig.origin.at_once == 0
    await assert_nothing_runs()


async def test_an_error_other_than_of_a_mirror_ends_the_feed(rig: Rig) -> None:
    rig.origin.failures = [ValueError("a bug")]
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(rig.feed.run(), PATIENCE)
    assert caught.group_contains(ValueError, match="a bug")
    assert not rig.feed.active
    await assert_nothing_runs()


async def test_with_leases_only_orphans_that_are_ours_are_pulled(rig: Rig) -> None:
    rig.torrent.availability = (0, 1, 0, 0, 0)
    rig.grant(1, 2, 4)
    async with rig.running():
        await rig.until_fed([2, 4])
        await asyncio.sleep(0.05)
        assert sorted(rig.torrent.fed) == [2, 4]
        rig.grant(0)
        await rig.until_fed([0])
    assert sorted(rig.torrent.fed) == [0, 2, 4]


@pytest.mark.parametrize(("peers", "expected"), [(1, {2, 4}), (2, set())])
async def test_a_node_that_is_alone_goes_on_over_http_until_the_swarm_is_quicker(
    tmp_path: Path, peers: int, expected: set[int]
) -> None:
    rig = Rig(tmp_path, seeders=True)
    rig.torrent.availability = (1,) * PIECES
    rig.grant(2, 4, peers=peers)
    async with rig.running():
        await rig.until_fed(expected)
        rig.torrent.download_rate = 1 << 30
        rig.grant(0, peers=peers)
        await asyncio.sleep(0.05)
    assert set(rig.torrent.fed) == expected


async def test_a_node_that_is_alone_does_not_wait_for_the_swarm_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(piece_feed, "BRIDGE", 0.0)
    rig = Rig(tmp_path, seeders=True)
    rig.torrent.availability = (1,) * PIECES
    rig.grant(2, 4, peers=1)
    async with rig.running():
        await asyncio.sleep(0.05)
    assert rig.torrent.fed == []


async def test_while_the_engine_downloads_from_the_seeders_itself_nothing_is_pulled(tmp_path: Path) -> None:
    rig = Rig(tmp_path, seeders=True)
    rig.torrent.availability = (1,) * PIECES
    rig.grant(2, 4, peers=1)
    assert rig.feed.demand().want > 0
    rig.feed.hand_over(on=True)
    demand = rig.feed.demand()
    assert (demand.want, demand.scarce) == (0, (1 << PIECES) - 1), "none is there yet"
    async with rig.running():
        await asyncio.sleep(0.05)
        assert not rig.torrent.fed
        rig.torrent.availability = ()
        rig.feed.hand_over(on=False)
        await rig.until_fed([2, 4])


@pytest.mark.parametrize(("peers", "wanted"), [(1, 2 + 3), (2, 2)])
def test_a_node_that_is_alone_asks_for_more_with_each_piece(rig: Rig, peers: int, wanted: int) -> None:
    rig.grant(peers=peers)
    rig.feed.fed |= {0, 1, 2}
    assert rig.feed.demand().want == wanted


async def test_all_that_is_leased_is_pulled_at_once(rig: Rig) -> None:
    rig.origin.open.clear()
    rig.grant(0, 1, 2, 3, 4)
    async with rig.running():
        await rig.until(lambda: rig.origin.at_once == PIECES, "everything is asked for")
        rig.origin.open.set()
        await rig.until_fed()


async def test_without_a_lease_no_piece_is_pulled_until_the_coordinator_is_lost(rig: Rig) -> None:
    rig.grant()
    async with rig.running():
        await asyncio.sleep(0.05)
        assert rig.origin.asked == []
        rig.feed.take(None)
        await rig.until_fed()


async def test_where_neither_peers_nor_leases_deliver_sources_are_asked_without_leases(tmp_path: Path) -> None:
    rig = Rig(tmp_path, grace=60.0, bound=0.2)
    rig.torrent.availability = (1,) * PIECES
    rig.grant()
    assert not rig.feed.goes_round
    async with rig.running():
        await rig.until_fed()
        assert rig.feed.goes_round
        demand = rig.feed.demand()
    assert (demand.want, demand.leased, demand.cut_off) == (0, 0, True)
    assert (rig.feed.origin_bytes, rig.feed.beyond_leases) == (0, sum(map(len, FILES.values())))


async def test_a_peer_that_delivers_again_ends_that(tmp_path: Path) -> None:
    rig = Rig(tmp_path, grace=60.0, bound=0.2)
    rig.origin.open.clear()
    rig.torrent.availability = (1,) * PIECES
    rig.grant()
    async with rig.running():
        await rig.until(lambda: rig.origin.at_once > 0, "it goes round the peer")
        rig.torrent.downloaded = 1 << 20
        await rig.until(lambda: not rig.feed.active, "what the peer has is not pulled any more")


async def test_a_seeder_is_asked_before_the_mirrors_also_without_leases(tmp_path: Path) -> None:
    rig = Rig(tmp_path, grace=60.0, bound=0.2, seeders=True)
    rig.grant()
    async with rig.running():
        await rig.until_fed()
    assert rig.origin.asked == []
    assert not rig.feed.demand().cut_off


async def test_mirrors_take_over_from_a_seeder_that_delivers_nothing_or_a_trickle(tmp_path: Path) -> None:
    rig = Rig(tmp_path, grace=60.0, bound=0.2, seeders=True)
    rig.seeders.open.clear()
    rig.grant()
    async with rig.running():
        await rig.until_fed()
    assert rig.seeders.asked
    assert rig.feed.from_mirrors == set(range(PIECES))
    assert rig.seeders.at_once == 0


async def test_a_trickle_of_the_only_source_goes_on(tmp_path: Path) -> None:
    rig = Rig(tmp_path, grace=60.0, bound=0.2, seeders=True, mirrors=False)
    rig.seeders.open.clear()
    rig.grant()
    async with rig.running():
        await rig.until(lambda: rig.feed.goes_round and rig.feed.active, "the seeders are asked without leases")
        await asyncio.sleep(0.5)
        asked = len(rig.seeders.asked)
        assert rig.seeders.at_once == asked
        rig.seeders.open.set()
        await rig.until_fed()


async def test_a_node_without_a_connection_to_the_other_peers_is_cut_off(tmp_path: Path) -> None:
    rig = Rig(tmp_path, bound=0.2)
    async with rig.running():
        rig.grant(*range(PIECES - 1), peers=3)
        await rig.until_fed(range(PIECES - 1))
        await rig.until(lambda: rig.feed.demand().cut_off, "no peer is connected")
    alone = Rig(tmp_path / "alone", bound=0.2)
    async with alone.running():
        alone.grant(*range(PIECES - 1), peers=1)
        await alone.until_fed(range(PIECES - 1))
        await asyncio.sleep(0.3)
        assert not alone.feed.cut_off


async def test_seeders_are_used_before_mirrors(rig: Rig) -> None:
    rig.seeders.usable = True
    rig.grant(0, 1, 2)
    async with rig.running():
        await rig.until_fed([0, 1, 2])
    assert rig.origin.asked == []
    assert rig.feed.from_mirrors == set()
    assert rig.feed.origin_bytes == 0


async def test_bytes_from_mirrors_are_counted(rig: Rig) -> None:
    rig.grant(0, 4)
    async with rig.running():
        await rig.until_fed([0, 4])
    assert rig.feed.from_mirrors == {0, 4}
    assert rig.feed.origin_bytes == PIECE + 2
    assert rig.feed.demand().origin_bytes == PIECE + 2


@pytest.mark.parametrize("failure", [Unavailable("down"), AccessDenied("wrong token"), WrongBytes("s", "f", "a", "b")])
async def test_pieces_that_seeders_fail_to_send_are_pulled_from_mirrors_at_once(
    rig: Rig, failure: P2PModelError
) -> None:
    rig.seeders.usable = True
    rig.seeders.refused = dict.fromkeys(FILES, failure)
    rig.grant(0, 1)
    async with rig.running():
        await rig.until(lambda: bool(rig.seeders.asked), "the seeders are asked")
        rig.seeders.usable = False
        rig.grant(0, 1)
        await rig.until_fed([0, 1])
        assert rig.feed.failure is None
    assert rig.feed.from_mirrors == {0, 1}


async def test_a_piece_leased_for_a_seeder_is_not_pulled_from_mirrors_before_the_next_demand(
    rig: Rig,
) -> None:
    rig.seeders.usable = True
    rig.seeders.open.clear()
    rig.grant(0, 1)
    async with rig.running():
        await rig.until(lambda: rig.seeders.at_once == 2, "the seeders are asked")
        rig.seeders.failures = [Unavailable("down")] * 2
        rig.seeders.usable = False
        rig.seeders.open.set()
        await rig.until(lambda: rig.seeders.at_once == 0, "they have failed")
        await asyncio.sleep(0.05)
        assert rig.origin.asked == []
        assert not rig.feed.demand().from_seeders
        await rig.until_fed([0, 1])


async def test_the_rest_is_estimated_by_the_rate_of_the_swarm(rig: Rig) -> None:
    assert rig.feed.takes_longer(1000.0), "nothing comes"
    rig.torrent.download_rate = 100 * rig.metainfo.manifest.total_size
    assert not rig.feed.takes_longer(1.0)
    rig.unneeded = set(range(PIECES))
    rig.torrent.download_rate = 0
    assert not rig.feed.takes_longer(1.0)


async def test_a_new_demand_is_due_once_other_sources_can_be_asked(rig: Rig) -> None:
    reports = list[bool]()
    rig.seeders.usable = True
    rig.feed.report_by(lambda: reports.append(rig.feed.demand().from_seeders))
    rig.grant(0)
    async with rig.running():
        await rig.until_fed([0])
        assert reports == []
        rig.seeders.usable = False
        await rig.until(lambda: reports == [False], "the seeders are gone")
        rig.seeders.usable = True
        await rig.until(lambda: reports == [False, True], "they are back")


async def test_a_failure_of_seeders_is_the_failure_if_there_are_no_mirrors(rig: Rig, tmp_path: Path) -> None:
    alone = Rig(tmp_path / "alone", mirrors=False, seeders=True)
    alone.seeders.refused = dict.fromkeys(FILES, Unavailable("down"))
    alone.grant(0)
    async with alone.running():
        await alone.until(lambda: alone.feed.failure is not None, "it is noted")
        assert str(alone.feed.failure) == "down"
        alone.seeders.refused.clear()
        await alone.until_fed([0])
        assert alone.feed.failure is None


async def test_a_budget_that_is_spent_matters_only_without_seeders(rig: Rig) -> None:
    assert not rig.feed.over_budget
    rig.grant(refused=True)
    assert rig.feed.over_budget
    rig.seeders.usable = True
    assert not rig.feed.over_budget
    rig.seeders.usable = False
    rig.feed.take(None)
    assert not rig.feed.over_budget


async def test_without_sources_the_demand_is_zero(rig: Rig, tmp_path: Path) -> None:
    alone = Rig(tmp_path / "alone", mirrors=False)
    assert alone.feed.demand().want == 0
    alone.seeders.usable = True
    assert alone.feed.demand().want > 0
    assert alone.feed.demand().from_seeders


async def test_while_mirrors_are_paused_the_demand_is_zero(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piece_feed, "RETRY_AFTER", 60.0)
    rig.origin.failures = [Unavailable("m0 is down")]
    assert rig.feed.demand().want > 0
    rig.grant(0)
    async with rig.running():
        await rig.until(lambda: rig.feed.failure is not None, "it has failed")
        assert rig.feed.demand().want == 0
        rig.seeders.usable = True
        assert rig.feed.demand().want > 0


async def test_the_demand_contains_scarce_and_leased_pieces(rig: Rig) -> None:
    rig.torrent.availability = (0, 2, 0, 0, 0)
    rig.unneeded = {3}
    rig.origin.open.clear()
    rig.grant(2)
    async with rig.running():
        await rig.until(lambda: rig.origin.at_once == 1, "piece 2 is asked for")
        demand = rig.feed.demand()
        assert list(pieces_of(demand.scarce)) == [0, 2, 4]
        assert list(pieces_of(demand.leased)) == [2]
        rig.origin.open.set()
        await rig.until_fed([2])
        assert list(pieces_of(rig.feed.demand().scarce)) == [0, 4]


async def test_a_leased_piece_is_no_delivery_before_it_is_here_though_a_peer_has_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path, seeders=True)
    rig.torrent.availability = (1,) * PIECES  # of a seeder that was joined in the swarm
    rig.grant(2)
    assert list(pieces_of(rig.feed.demand().scarce)) == [2]
    rig.unneeded = {2}
    assert list(pieces_of(rig.feed.demand().scarce)) == []


@pytest.mark.parametrize(("seeders", "late", "waits"), [(True, False, False), (True, True, True), (False, False, True)])
async def test_peers_get_time_to_connect_unless_none_can_have_pieces(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, seeders: bool, late: bool, waits: bool
) -> None:
    monkeypatch.setattr(lease_strategy, "CONNECT_WITHIN", 60.0)
    rig.seeders.usable = seeders
    rig.grant(0, late=late)
    assert (rig.feed.demand().want == 0) == waits
    async with rig.running():
        if not waits:
            return await rig.until_fed([0])
        await asyncio.sleep(0.05)
        assert rig.seeders.asked == rig.origin.asked == []
        monkeypatch.setattr(lease_strategy, "CONNECT_WITHIN", 0.0)
        await rig.until_fed([0])
    return None


@pytest.mark.parametrize(("size", "least"), [(100, 64), (PIECE, 2)])
async def test_the_lease_window_is_counted_in_actual_piece_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, least: int
) -> None:
    files = {f"{number}.bin": bytes([number]) * size for number in range(20)}
    metainfo = Swarm(tmp_path, snapshot_of(files)).metainfo
    torrent = FakeTorrent()
    feed = PieceFeed(
        torrent,  # type: ignore[arg-type]
        metainfo,
        frozenset(range(20)),
        origin=FakeOrigin(),
        seeders=None,
        orphans=OrphanStrategy(torrent, OrphanPieces(20, "here", OrphanRules(grace=0.0, limit=LIMIT), 0.0)),
        leases=mean_leases(metainfo),
        clock=DeliveryClock(60.0, 0.0),
    )
    monkeypatch.setattr(feed._rate, "value", lambda: PIECE)
    assert feed.demand().want >= least
    assert feed.demand().want <= least + 2


async def test_without_leases_it_reads_the_availability_before_it_pulls_more(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(piece_feed, "TICK", 100.0)
    async with rig.running():
        await rig.until(lambda: len(rig.torrent.fed) == LIMIT and not rig.feed.active, "the first pieces are fed")
        await asyncio.sleep(0.1)
    assert len(rig.origin.asked) == LIMIT


@pytest.fixture
def orphan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """A feed with peers without pieces, and with seeders that delay their responses."""
    monkeypatch.setattr(piece_feed, "TICK", 0.01)
    monkeypatch.setattr(orphan_strategy, "READ_PEERS_EVERY", 0.0)
    rig = Rig(tmp_path, grace=60.0, seeders=True)
    rig.torrent.availability = (0,) * PIECES
    rig.seeders.open.clear()
    return rig


async def test_without_leases_it_shares_scarce_pieces_with_other_pulling_peers(
    orphan: Rig,
) -> None:
    """Other pulling peers are incomplete peers that run p2pmodel."""

    def peer(peer_id: str, progress: float) -> PeerConnection:
        return PeerConnection("127.0.0.2:1", "peer", peer_id=peer_id, progress=progress)

    orphan.torrent.met = [peer(new_peer_id(), 1.0), peer(b"-qB4520-abcdefghijkl".hex(), 0.5)]
    async with orphan.running():
        await orphan.until(lambda: orphan.seeders.at_once == LIMIT, "alone it has as many in flight as there may be")
        orphan.torrent.met.append(peer(new_peer_id(), 0.5))
        orphan.seeders.most_at_once = 0
        orphan.seeders.open.set()
        await orphan.until(lambda: len(orphan.torrent.fed) >= PIECES - 1, "all came but what the other must be pulling")
        assert orphan.seeders.most_at_once == 1


async def test_other_pulling_peers_are_remembered_until_the_engine_reports_again(
    orphan: Rig,
) -> None:
    orphan.torrent.met = [PeerConnection("127.0.0.2:1", "peer", peer_id=new_peer_id(), progress=0.5)]
    async with orphan.running():
        await orphan.until(lambda: orphan.seeders.at_once == 1, "half of what may be in flight is ours")
        orphan.torrent.met.clear()
        await asyncio.sleep(0.05)
        assert orphan.seeders.at_once == 1
        orphan.torrent.availability = ()
        await orphan.until(lambda: orphan.seeders.at_once == LIMIT, "it is alone")


async def test_a_seeder_that_sends_a_bad_piece_is_reported_but_no_mirror_is(tmp_path: Path) -> None:
    for seeders in (False, True):
        rig = Rig(tmp_path, seeders=seeders)
        rig.grant(0, 2)
        async with rig.running():
            await rig.until_fed([0, 2])
        assert rig.bad == ([0, 2] if seeders else []), "each read of the fake is tried with wrong bytes, too"


async def test_a_node_that_no_peer_connects_to_pulls_from_seeders_without_leases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others deliver its pieces, and it would get leases for them only later."""
    monkeypatch.setattr(piece_feed, "TICK", 0.01)
    monkeypatch.setattr(lease_strategy, "CONNECT_WITHIN", 0.0)
    rig = Rig(tmp_path, seeders=True, mirrors=False)
    rig.grant()
    async with rig.running():
        await asyncio.sleep(0.05)
        assert rig.torrent.fed == [], "nothing is leased"
        assert rig.feed.demand().want > 0
        rig.http_only = True
        rig.seeders.open.clear()
        await rig.until(lambda: rig.feed.active, "pieces are asked for")
        assert rig.seeders.at_once <= PIECES - 1, "a few at a time"
        demand = rig.feed.demand()
        assert (demand.want, demand.leased) == (0, 0), "it takes no lease from the others"
        rig.seeders.open.set()
        await rig.until_fed()


async def test_a_node_with_peers_takes_leases_although_an_address_of_it_is_for_http_alone(rig: Rig) -> None:
    rig.http_only, rig.seeders.usable = True, True
    rig.torrent.availability = (0,) * PIECES
    rig.grant(1)
    async with rig.running():
        await rig.until_fed([1])
        await asyncio.sleep(0.05)
    assert rig.torrent.fed == [1]
    assert rig.feed.demand().want > 0
