"""What peers and HTTP use together keeps to the limits."""

import asyncio

import pytest

from p2pmodel.core.progress.views import RateLimits
from p2pmodel.node import bandwidth
from p2pmodel.node.bandwidth import SharedLimits
from p2pmodel.swarm.engine import Rates
from tests.support.eventually import eventually


class Engine:
    """Records its limits, and uses them up to `wants`."""

    def __init__(self, upload: int = 0, download: int = 0) -> None:
        self.wants = (upload, download)
        self.told: list[tuple[int, int]] = []

    @property
    def rates(self) -> Rates:
        limits = self.told[-1] if self.told else (0, 0)
        return Rates(*(min(want, limit or want) for want, limit in zip(self.wants, limits, strict=True)))

    def limit(self, *, upload: int, download: int) -> None:
        self.told.append((upload, download))


class Http:
    """Uses its limit up to `wants`."""

    def __init__(self, wants: int = 0) -> None:
        self.wants = wants
        self.passed = 0
        self.rate: int | None = None

    def change(self, rate: int, *, of: int = 0) -> None:
        self.rate = rate

    def work(self) -> None:
        self.passed += min(self.wants, self.rate or self.wants)


def looks(shared: SharedLimits, *https: Http, times: int = 20) -> None:
    for _ in range(times):
        for http in https:
            http.work()
        shared.adjust(1.0)


def limited(engine: Engine, up: int = 0, down: int = 0, **http: Http) -> SharedLimits:
    return SharedLimits(engine, RateLimits(up, down), **http)  # type: ignore[arg-type]


def test_without_limits_no_rate_is_limited() -> None:
    engine, up, down = Engine(1 << 40, 1 << 40), Http(1 << 40), Http(1 << 40)
    looks(limited(engine, upload=up, download=down), up, down)
    assert (engine.told, up.rate, down.rate) == ([(0, 0)], 0, 0)


def test_a_single_user_gets_nearly_all_and_two_get_half_each() -> None:
    engine, down = Engine(download=9000), Http()
    shared = limited(engine, 0, 1000, download=down)
    looks(shared, down)
    assert engine.told[-1] == (0, 980)
    down.wants = 9000
    looks(shared, down)
    assert abs(engine.told[-1][1] - 500) <= 50
    assert engine.told[-1][1] + (down.rate or 0) == 1000
    engine.wants = (0, 0)
    looks(shared, down)
    assert down.rate is not None
    assert down.rate >= 930


def test_each_direction_has_its_own() -> None:
    engine, up = Engine(upload=9000, download=9000), Http(9000)
    shared = limited(engine, 1000, 300, upload=up)
    looks(shared, up)
    assert engine.told[-1][1] == 300, "no bytes come over HTTP"
    assert engine.told[-1][0] + (up.rate or 0) == 1000


def test_a_new_limit_holds_at_once() -> None:
    engine, down = Engine(download=9000), Http()
    shared = limited(engine, 0, 1000, download=down)
    looks(shared, down)
    shared.change(upload=7, download=2000)
    assert engine.told[-1] == (7, 1960)
    shared.change(upload=0, download=0)
    assert (engine.told[-1], down.rate) == ((0, 0), 0)


def test_a_small_change_is_not_applied() -> None:
    engine, down = Engine(download=9000), Http(200)
    shared = limited(engine, 0, 1000, download=down)
    looks(shared, down)
    told = len(engine.told)
    down.wants = 202
    looks(shared, down)
    assert len(engine.told) == told


async def test_the_limits_are_adjusted_periodically(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "SHARE_EVERY", 0.01)
    engine, down = Engine(download=9000), Http()
    running = asyncio.create_task(limited(engine, 0, 1000, download=down).run())
    await eventually(lambda: engine.told[-1:] == [(0, 980)], what="a second look")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
