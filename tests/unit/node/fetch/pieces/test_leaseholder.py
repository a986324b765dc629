"""Between a coordinator and a feed: what is passed on, and when the seeders are joined in the swarm."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from p2pmodel.coordinator.client import connection
from p2pmodel.coordinator.client.connection import CoordinatorConnection, PeerState
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.leases.demand import Complaint, Demand, Grant
from p2pmodel.coordinator.leases.messages import CoordinatorMessage
from p2pmodel.coordinator.tracker.sources import Source
from p2pmodel.core.network.egress import PUBLIC
from p2pmodel.core.tasks import companions
from p2pmodel.node.fetch.pieces import leaseholder
from p2pmodel.node.fetch.pieces.leaseholder import Crowded, Leaseholder
from p2pmodel.node.fetch.pieces.seeders import Endpoint
from p2pmodel.swarm.engine import WebSeeds
from tests.support.eventually import eventually
from tests.support.node_swarm import assert_nothing_runs

URL = "http://c.test"
SEEDER = Source("/source", "t0ken", "10.0.0.9:6881", "rack-1")
WAITING = Demand(7, from_seeders=False, want=0)
CROWD = CoordinatorMessage(Grant((1,), peers=3), (SEEDER,))
ALONE = CoordinatorMessage(Grant((1,), peers=1), (SEEDER,))


class FakeConnection(CoordinatorConnection):
    """A connection with the test as its coordinator."""

    def __init__(self) -> None:
        super().__init__((URL,), "/leases/x", peer="10.0.0.1:6881", timeout=5)
        self.changes = 0
        self.answer = asyncio.Event()

    def changed(self) -> None:
        self.changes += 1

    async def answered(self) -> None:
        await self.answer.wait()

    async def run(self, _state: PeerState) -> None:
        await asyncio.Event().wait()

    def receive(self, message: CoordinatorMessage | None) -> None:
        if message is not None:
            self._coordinator = Coordinator(URL)
        self._update(message)


class FakeSeeders:
    egress = PUBLIC

    def __init__(self) -> None:
        self.known: list[Endpoint] = []
        self.lost = False

    async def update(self, endpoints: list[Endpoint], *, lost: bool = False) -> None:
        self.known, self.lost = endpoints or self.known, lost


class FakeWebSeeds:
    """Web seeds as wanted, while there are `any`."""

    any = True

    def __init__(self) -> None:
        self.looks: list[tuple[bool, bool]] = []
        self.used = False

    def at_first(self, *, wanted: bool) -> WebSeeds:
        return WebSeeds(("http://127.0.0.9/",)) if wanted else WebSeeds()

    def look(self, _torrent: object, _now: float, *, wanted: bool, admissible: bool) -> bool:
        self.looks.append((wanted, admissible))
        self.used = self.any and admissible and (wanted or self.used)
        return self.used


class FakeFeed:
    goes_round = False
    has_all = False
    longer = True

    def takes_longer(self, seconds: float) -> bool:
        return self.longer and seconds > 0

    def __init__(self) -> None:
        self.grants: list[tuple[Grant | None, bool]] = []
        self.report: Callable[[], None] = lambda: None

    def hand_over(self, *, on: bool) -> None:
        self.handed_over = on

    def report_by(self, on_new_demand: Callable[[], None]) -> None:
        self.report = on_new_demand

    def take(self, grant: Grant | None, *, late: bool = False) -> None:
        self.grants.append((grant, late))

    def demand(self) -> Demand:
        return Demand(3, from_seeders=True)


class FakeTorrent:
    def __init__(self) -> None:
        self.joined: list[tuple[str, int]] = []
        self.announced: list[int] = []
        """At each announce, the peers that were joined so far."""

    def connect(self, host: str, port: int) -> None:
        self.joined.append((host, port))

    def announce(self) -> None:
        self.announced.append(len(self.joined))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Rig:
    def __init__(self, clock: Clock, *, may_leave: bool = False, web_seeds: FakeWebSeeds | None = None) -> None:
        self.clock = clock
        self.seeders, self.feed, self.torrent = FakeSeeders(), FakeFeed(), FakeTorrent()
        self.connection = FakeConnection()
        self.holder = Leaseholder(
            self.connection,
            self.seeders,  # type: ignore[arg-type]
            piece_count=8,
            waiting=WAITING,
            may_leave=may_leave,
            web_seeds=web_seeds,  # type: ignore[arg-type]
        )

    async def send(self, message: CoordinatorMessage | None) -> None:
        self.connection.receive(message)
        for _ in range(3):  # the holder follows in a task of its own
            await asyncio.sleep(0)

    async def begin(
        self, start: Callable[[Coroutine[Any, Any, None]], None], message: CoordinatorMessage | None
    ) -> None:
        if message:
            self.connection.receive(message)
        self.connection.answer.set()
        await self.holder.begin(start)

    @asynccontextmanager
    async def running(self, message: CoordinatorMessage | None) -> AsyncIterator[None]:
        """A transfer with `message` as the coordinator's first message."""
        async with companions() as start:
            await self.begin(start, message)
            self.holder.hold(self.torrent, self.feed)  # type: ignore[arg-type]
            start(self.holder.run())
            await asyncio.sleep(0)
            yield

    async def look(self) -> None:
        """Let it look around a few times."""
        await asyncio.sleep(10 * leaseholder.LOOK_EVERY)

    async def joins(self, *peers: tuple[str, int]) -> None:
        await eventually(partial(self._has_joined, peers), what=f"{peers} are joined")

    def _has_joined(self, peers: tuple[tuple[str, int], ...]) -> bool:
        return self.torrent.joined == list(peers)


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    clock = Clock()
    monkeypatch.setattr(leaseholder, "time", clock)
    monkeypatch.setattr(connection, "time", clock)
    monkeypatch.setattr(leaseholder, "LOOK_EVERY", 0.005)
    return Rig(clock)


async def test_before_the_feed_starts_the_demand_has_the_missing_pieces_and_waits(rig: Rig) -> None:
    assert rig.holder.demand() == WAITING
    async with rig.running(CROWD):
        assert rig.holder.demand() == Demand(3, from_seeders=True)
        assert rig.connection.changes >= 1


async def test_seeders_have_urls_relative_to_the_coordinator_after_the_start(rig: Rig) -> None:
    async with companions() as start:
        await rig.begin(start, CROWD)
        assert rig.holder.shuns_seeders
        (source,) = rig.seeders.known
        assert (source.url, source.token, source.zone) == ("http://c.test/source", "t0ken", "rack-1")
        assert source.egress.names("c.test")
        assert not source.egress.refusal("10.0.0.1")
        assert source.egress.refusal("127.0.0.1")
    await assert_nothing_runs()


async def test_without_a_coordinator_there_are_no_leases(rig: Rig) -> None:
    async with rig.running(None):
        assert not rig.holder.shuns_seeders
        assert rig.feed.grants == [(None, False)]
        assert rig.seeders.known == []


async def test_without_seeders_of_the_coordinator_other_seeders_are_not_shunned(rig: Rig) -> None:
    async with rig.running(CoordinatorMessage(Grant((1,), peers=2))):
        assert not rig.holder.shuns_seeders


async def test_a_seeder_that_has_just_gone_is_shunned_when_it_returns(rig: Rig) -> None:
    async with rig.running(CoordinatorMessage(Grant((1,), peers=2), lost_source=True)):
        assert rig.holder.shuns_seeders


async def test_seeders_are_used_as_soon_as_they_are_listed_and_known_as_lost(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaseholder, "LOOK_EVERY", 1000.0)
    async with rig.running(CoordinatorMessage(Grant((1,), peers=2), lost_source=True)):
        await rig.send(CoordinatorMessage(Grant((2,), peers=2), lost_source=True))
        assert rig.seeders.lost
        await rig.send(CROWD)
        assert ([each.url for each in rig.seeders.known], rig.seeders.lost) == (["http://c.test/source"], False)
        await rig.send(CoordinatorMessage(Grant((2,), peers=2), lost_source=True))
        assert rig.seeders.lost
        await rig.send(None)
        assert not rig.seeders.lost, "no coordinator says when they are back"


async def test_the_coordinator_learns_at_once_of_a_change_that_the_feed_reports(rig: Rig) -> None:
    async with rig.running(CROWD):
        before = rig.connection.changes
        rig.feed.report()
        assert rig.connection.changes == before + 1


async def test_the_feed_receives_every_grant_and_the_loss_of_the_coordinator(rig: Rig) -> None:
    late = CoordinatorMessage(Grant((4, 5)), late=True)
    async with rig.running(CROWD):
        await rig.send(late)
        await rig.send(None)
    assert rig.feed.grants == [(CROWD.grant, False), (late.grant, True), (None, False)]


async def test_a_leased_piece_that_is_complete_changes_the_demand(rig: Rig) -> None:
    async with rig.running(CROWD):
        before = rig.connection.changes
        rig.holder.arrived(0)
        assert rig.connection.changes == before
        rig.holder.arrived(1)
        assert rig.connection.changes == before + 1


async def test_in_a_crowd_the_seeders_are_never_joined(rig: Rig) -> None:
    async with rig.running(CROWD):
        rig.clock.now += 1000
        await rig.look()
        assert rig.torrent.joined == []


async def test_where_nothing_is_delivered_the_seeders_are_joined(rig: Rig) -> None:
    async with rig.running(CROWD):
        rig.feed.goes_round = True
        await rig.joins(("10.0.0.9", 6881))


async def test_a_node_alone_connects_to_each_seeder_once_after_a_while(rig: Rig) -> None:
    async with rig.running(ALONE):
        rig.clock.now += leaseholder.ALONE_FOR - 0.05
        await rig.look()
        assert rig.torrent.joined == []
        rig.clock.now += 0.1
        await rig.joins(("10.0.0.9", 6881))
        await rig.send(
            CoordinatorMessage(Grant(), (SEEDER, Source("http://x.test", peer="[fd00::1]:7"), Source("http://y.test")))
        )
        await rig.joins(("10.0.0.9", 6881), ("fd00::1", 7))
        await rig.look()
        assert rig.torrent.announced == [1, 2], (
            "the engine connects at the answer of a tracker, or up to a second later"
        )


async def test_a_node_alone_looks_when_it_counts_as_alone(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaseholder, "LOOK_EVERY", 1000.0)
    async with rig.running(ALONE):
        rig.clock.now += leaseholder.ALONE_FOR + 0.1
        await rig.joins(("10.0.0.9", 6881))


async def test_a_node_that_was_in_a_crowd_waits_again(rig: Rig) -> None:
    async with rig.running(ALONE):
        rig.clock.now += leaseholder.ALONE_FOR - 0.1
        await rig.send(CROWD)
        await rig.send(ALONE)
        rig.clock.now += leaseholder.ALONE_FOR - 0.1
        await rig.look()
        assert rig.torrent.joined == []
        rig.clock.now += 0.2
        await rig.joins(("10.0.0.9", 6881))


async def become_crowded(rig: Rig, message: CoordinatorMessage = CROWD) -> None:
    """Be alone, join the seeders, and then get `message`."""
    async with rig.running(ALONE):
        rig.clock.now += leaseholder.ALONE_FOR + 0.1
        await rig.joins(("10.0.0.9", 6881))
        await rig.look()
        await rig.send(message)
        await rig.look()


async def test_a_node_leaves_the_seeders_when_others_come(rig: Rig) -> None:
    with pytest.raises(Crowded):
        await become_crowded(Rig(rig.clock, may_leave=True))
    await assert_nothing_runs()


async def test_it_stays_where_it_left_before_or_would_be_complete_soon_or_sources_fail(rig: Rig) -> None:
    await become_crowded(rig)
    for name, value in (("longer", False), ("goes_round", True)):
        other = Rig(rig.clock, may_leave=True)
        setattr(other.feed, name, value)
        await become_crowded(other)
    await become_crowded(Rig(rig.clock, may_leave=True), CoordinatorMessage(Grant((1,), peers=3)))


async def test_a_node_that_joined_the_seeders_without_a_coordinator_stays(rig: Rig) -> None:
    rig = Rig(rig.clock, may_leave=True)
    async with rig.running(CROWD):
        await rig.send(None)
        rig.clock.now += leaseholder.LOST_FOR + 0.1
        await rig.joins(("10.0.0.9", 6881))
        await rig.send(CROWD)
        await rig.look()


async def test_a_node_alone_uses_web_seeds_instead_and_drops_them_when_others_come(rig: Rig) -> None:
    web_seeds = FakeWebSeeds()
    rig = Rig(rig.clock, may_leave=True, web_seeds=web_seeds)
    async with rig.running(ALONE):
        assert web_seeds.used, "at once: the engine connects to them while it begins"
        assert rig.feed.handed_over
        await rig.look()
        await rig.send(None)
        rig.clock.now += leaseholder.LOST_FOR + 0.1
        await rig.look()
        assert web_seeds.looks[-1] == (False, True), "they go on without a coordinator"
        assert not rig.torrent.joined
        await rig.send(CROWD)
        await eventually(lambda: not web_seeds.used, what="they are dropped")
        assert web_seeds.looks[-1] == (False, False)
        assert not rig.feed.handed_over
        await rig.look()
        assert not rig.torrent.joined
    rig.feed.has_all = True
    async with rig.running(ALONE):
        rig.clock.now += leaseholder.ALONE_FOR + 0.1
        await eventually(lambda: web_seeds.looks[-1] == (True, False), what="none are needed any more")


@pytest.mark.parametrize(("message", "count"), [(None, 0), (ALONE, 1), (CROWD, 0)])
async def test_the_swarm_is_joined_with_web_seeds_by_a_node_that_is_alone(
    rig: Rig, message: CoordinatorMessage | None, count: int
) -> None:
    assert not rig.holder.first_web_seeds().urls, "it has none"
    rig = Rig(rig.clock, web_seeds=FakeWebSeeds())
    await rig.send(message)
    assert len(rig.holder.first_web_seeds().urls) == count


async def test_without_web_seeds_that_work_a_node_alone_joins_the_seeders(rig: Rig) -> None:
    web_seeds = FakeWebSeeds()
    rig = Rig(rig.clock, web_seeds=web_seeds)
    async with rig.running(ALONE):
        rig.clock.now += leaseholder.ALONE_FOR + 0.1
        await eventually(lambda: web_seeds.used, what="web seeds are used")
        web_seeds.any = False
        await rig.joins(("10.0.0.9", 6881))


async def test_after_the_loss_of_the_coordinator_the_last_seeders_are_joined(rig: Rig) -> None:
    async with rig.running(CROWD):
        rig.clock.now += 1000
        await rig.send(None)
        rig.clock.now += leaseholder.LOST_FOR - 0.1
        await rig.look()
        assert rig.torrent.joined == []
        rig.clock.now += 0.2
        await rig.joins(("10.0.0.9", 6881))


async def test_a_coordinator_that_returns_in_time_prevents_that(rig: Rig) -> None:
    async with rig.running(CROWD):
        await rig.send(None)
        rig.clock.now += leaseholder.LOST_FOR - 0.1
        await rig.send(CROWD)
        rig.clock.now += leaseholder.LOST_FOR
        await rig.look()
        assert rig.torrent.joined == []


@pytest.mark.parametrize("peer", ["nonsense", "10.0.0.9", "10.0.0.9:99999", ":1", "seeder.test:6881", "256.1.1.1:4"])
async def test_invalid_addresses_are_ignored(rig: Rig, peer: str) -> None:
    async with rig.running(CoordinatorMessage(Grant(), (Source("http://x.test", peer=peer), SEEDER))):
        rig.clock.now += leaseholder.ALONE_FOR + 0.1
        await rig.joins(("10.0.0.9", 6881))


async def test_bad_pieces_are_reported_with_the_demand(rig: Rig) -> None:
    async with rig.running(CROWD):
        before = rig.connection.changes
        for _ in range(2):
            rig.holder.complain(3, "10.0.0.7")
        rig.holder.complain_of_seeders(4)
        assert rig.holder.demand().complaints == (Complaint(3, "10.0.0.7"), Complaint(4, "10.0.0.9"))
        assert rig.connection.changes == before + 2
