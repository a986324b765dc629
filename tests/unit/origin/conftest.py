"""Fixtures of the origin's tests: a snapshot, and an origin over fake hubs on a virtual clock."""

import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.origin.origin import Origin
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import HubSnapshot, snapshot_of
from tests.support.virtual_clock import VirtualClock

OpenOrigin = Callable[..., AbstractAsyncContextManager[Origin]]


@pytest.fixture(scope="session")
def snapshot() -> HubSnapshot:
    weights = random.Random(7).randbytes(1_500_000)
    return snapshot_of({"config.json": b'{"a": 1}', "w/model.safetensors": weights, "empty.txt": b""})


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def open_origin(clock: VirtualClock, notes: list[str]) -> OpenOrigin:
    """`open_origin(hub_or_settings, ..., part_size=...)`: mirrors are named a, b, c in the order given."""

    def build(*mirrors: FakeHub | MirrorSettings | str, connections: int = 4, **settings: Any) -> Origin:
        listed = []
        for name, mirror in zip("abcdef", mirrors, strict=False):
            if isinstance(mirror, MirrorSettings):
                listed.append(mirror)
            else:
                url = mirror if isinstance(mirror, str) else mirror.url
                listed.append(MirrorSettings(name=name, endpoint=url, max_connections=connections))
        chosen = {"part_size": 1 << 18, "patience": 60.0, "connect_timeout": 2.0, "read_timeout": 0.4} | settings
        return Origin(listed, OriginSettings(**chosen), on_note=notes.append, clock=clock)

    return build
