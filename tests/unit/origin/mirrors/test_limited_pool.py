"""A tight limit leaves room for a few requests only: more would wait so long that they look silent."""

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.core.pace import Pace
from p2pmodel.origin.clock import Clock
from p2pmodel.origin.mirrors.mirror import mirrors_of
from p2pmodel.origin.mirrors.pool import MirrorNotes, MirrorPool
from p2pmodel.origin.requests import RangeRequests
from p2pmodel.origin.sessions import MirrorSessions


def pool_of(*limits: int | None, pace: Pace | None = None) -> MirrorPool:
    listed = [
        MirrorSettings(name=f"m{n}", endpoint=f"http://m{n}.example", max_bytes_per_second=limit)
        for n, limit in enumerate(limits)
    ]
    clock, settings = Clock(), OriginSettings()
    requests = RangeRequests(MirrorSessions(settings), clock)
    notes = MirrorNotes(lambda _: None, clock)
    return MirrorPool(mirrors_of(listed, pace), requests, settings, clock, notes, pace=pace)


def filled(pool: MirrorPool, index: int) -> int:
    """How many requests there is room for at one mirror, which are then open."""
    mirror, count = pool.mirrors[index], 0
    while pool.has_room(mirror) and count < 100:
        mirror.request_began()
        count += 1
    return count


async def test_a_common_limit_bounds_the_requests_to_all_mirrors_together():
    pool = pool_of(None, None, pace=Pace(1_000_000))
    assert filled(pool, 0) == 4
    assert filled(pool, 1) == 0
    pool.mirrors[0].request_ended()
    assert filled(pool, 1) == 1


async def test_a_limit_of_one_mirror_leaves_the_others_alone():
    pool = pool_of(1_000_000, None)
    assert filled(pool, 0) == 4
    assert filled(pool, 1) == 100


async def test_a_high_limit_leaves_room_for_many_and_the_lowest_for_one():
    assert Pace(1_000_000_000).readers > 64
    assert Pace(1024).readers == 1
    assert Pace(None).readers > 1_000_000
