"""A node as a member of an assembly: what it sends, and what it concludes from the coordinator's messages."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from p2pmodel.config.sections.swarm import SwarmSettings
from p2pmodel.coordinator.assembly.messages import parse_update
from p2pmodel.coordinator.client import connection
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.leases.demand import Demand, Grant
from p2pmodel.coordinator.leases.messages import CoordinatorMessage
from p2pmodel.core.content.bitfield import bits_of
from p2pmodel.node.assembly import membership
from p2pmodel.node.assembly.context import AssemblyContext
from p2pmodel.node.assembly.membership import ALONE_FOR, LOST_FOR, Membership
from p2pmodel.node.assembly.outcome import AssemblyFailed, AssemblySilent
from p2pmodel.node.assembly.piece_state import AssemblyPieces
from p2pmodel.node.reporter import Reporter
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import HubCache
from p2pmodel.swarm.engine import Engine
from p2pmodel.swarm.torrents import parse
from tests.support.hub_snapshot import snapshot_of
from tests.support.torrent_files import torrent_of

URL = "http://c.test"
COORDINATOR = Coordinator(URL)
MANIFEST = snapshot_of({"a.bin": bytes(1_000_000), "b.json": b"{}"}).manifest
STALL, SILENT = 20.0, 4.0


async def no_engine() -> Engine:
    raise AssertionError("no engine is needed")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Member:
    """A member with the test as its coordinator."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self.clock = clock
        self.context = AssemblyContext(
            MANIFEST,
            ("main",),
            (COORDINATOR,),
            repo=HubCache(root).repo(MANIFEST.repo),
            origin=cast("Origin", None),
            engine=no_engine,
            settings=SwarmSettings(peer_timeout=SILENT, stall_timeout=STALL),
            reporter=Reporter(),
        )
        self.pieces = AssemblyPieces(self.context.layout)
        self.membership = Membership(self.context, self.pieces)

    def receive(self, message: CoordinatorMessage | None) -> None:
        link = self.membership._connection
        link._coordinator = COORDINATOR
        link._update(message)
        self.membership._take_message()

    def demand(self) -> Demand:
        return parse_update(self.membership.message())[0]


@pytest.fixture
def member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Member:
    clock = Clock()
    monkeypatch.setattr(membership, "time", clock)
    monkeypatch.setattr(connection, "time", clock)
    return Member(tmp_path, clock)


def message(*pieces: int, peers: int = 2, refused: bool = False, **fields: object) -> CoordinatorMessage:
    return CoordinatorMessage(Grant(pieces, peers=peers, refused=refused), **fields)  # type: ignore[arg-type]


async def test_it_demands_many_leases_at_a_time_and_none_while_it_drains(member: Member) -> None:
    everything = bits_of(range(member.context.layout.piece_count))
    member.receive(message())
    wanted = member.demand()
    assert (wanted.scarce, wanted.from_seeders, wanted.leased) == (everything, False, 0)
    assert wanted.want == min(int(membership.FIRST_BYTES / MANIFEST.total_size * everything.bit_length()), 1024)
    member.receive(message(*range(wanted.want)))
    assert member.demand().want == wanted.want, "it returns no leases"
    member.pieces.add([0])
    member.pieces.in_flight |= {1, 2}
    assert member.demand().scarce == everything & ~1
    assert member.demand().leased == bits_of([1, 2])
    member.membership.draining = True
    assert member.demand().want == 0


async def test_a_node_that_claims_all_pieces_lacks_none(member: Member) -> None:
    member.membership.claims_all = True
    assert member.demand() == Demand(0, from_seeders=False, want=0)


async def test_roots_are_sent_once_on_each_connection(member: Member) -> None:
    assert member.membership.opening() == [member.context.text]
    member.pieces.add([3])
    member.membership.add_roots({3: bytes(32)})
    assert parse_update(member.membership.message())[1] == {3: bytes(32)}
    assert parse_update(member.membership.message())[1] == {}
    member.membership.opening()
    assert parse_update(member.membership.message())[1] == {3: bytes(32)}


async def test_it_is_alone_after_a_while_or_at_once_with_all_pieces(member: Member) -> None:
    member.receive(message(peers=1))
    member.clock.now += ALONE_FOR
    assert not member.membership.is_alone()
    member.clock.now += 0.1
    assert member.membership.is_alone()
    member.receive(message(peers=2))
    assert not member.membership.is_alone()
    member.pieces.add(range(member.context.layout.piece_count))
    assert not member.membership.has_all_alone()
    member.receive(message(peers=1))
    assert member.membership.is_alone()
    assert member.membership.has_all_alone()


async def test_the_torrents_are_those_of_the_coordinator(member: Member) -> None:
    assert member.membership.partial_torrents() == set()
    member.receive(message(partial_torrents=("ab", "cd")))
    base = f"{URL}/assemblies/{member.context.digest}"
    assert member.membership.partial_torrents() == {f"{base}/ab.torrent", f"{base}/cd.torrent"}
    assert member.membership.assembled == ""
    member.receive(message(assembled="ef"))
    member.receive(None)
    assert (member.membership.assembled, member.membership.coordinator) == ("ef", COORDINATOR)


async def test_a_granted_number_that_no_piece_has_is_ignored(member: Member) -> None:
    count = member.context.layout.piece_count
    member.receive(message(0, count - 1, count, 1 << 61))
    assert member.membership.granted == (0, count - 1)


async def test_a_torrent_of_another_layout_does_not_fit(member: Member) -> None:
    contents = {"a.bin": bytes(1_000_000), "b.json": b"{}"}
    usual = parse(torrent_of(contents, repo=str(MANIFEST.repo), commit=MANIFEST.commit))
    small = parse(torrent_of(contents, repo=str(MANIFEST.repo), commit=MANIFEST.commit, piece_length=16384))
    context = replace(member.context, manifest=usual.manifest)
    assert context.fits(usual)
    assert not context.fits(small)
    assert not member.context.fits(parse(torrent_of(contents, commit="0" * 40)))


async def test_an_assembly_without_progress_fails(member: Member) -> None:
    member.receive(message(left=9))
    member.clock.now += STALL + 1
    member.pieces.in_flight.add(0)
    member.membership.check_progress()
    member.pieces.in_flight.clear()
    with pytest.raises(AssemblyFailed, match="no node delivers the remaining pieces"):
        member.membership.check_progress()
    member.receive(message(left=8))
    member.membership.check_progress()
    member.clock.now += STALL + 1
    member.receive(message(left=8, refused=True))
    with pytest.raises(AssemblySilent, match=r"swarm\.origin_budget"):
        member.membership.check_progress()


async def test_other_nodes_are_waited_for_twice_the_peer_timeout(member: Member) -> None:
    member.receive(message(left=9))
    member.clock.now += 2 * SILENT - 0.1
    member.membership.check_progress()
    member.clock.now += 0.2
    with pytest.raises(AssemblySilent):
        member.membership.check_progress()


async def test_an_assembly_without_a_coordinator_fails_after_a_while(member: Member) -> None:
    member.receive(message())
    member.receive(None)
    member.clock.now += LOST_FOR
    member.membership.check_progress()
    member.clock.now += 0.1
    with pytest.raises(AssemblyFailed, match="the coordinator is gone"):
        member.membership.check_progress()
