"""One file from seeders over plain HTTP: what was received is kept, what fails is asked of the next seeder."""

import asyncio
import random
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from p2pmodel.errors import LocalResource
from p2pmodel.node.fetch.lone import file as lone_file
from p2pmodel.node.fetch.lone.file import FileSource, LoneFile
from p2pmodel.store.files.hashing import chunks
from p2pmodel.tls import context_with
from tests.support.certificates import authority
from tests.support.eventually import eventually
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of

NAME = "a name?.safetensors"
CONTENT = random.Random(7).randbytes(3_000_001)
SNAPSHOT = snapshot_of({NAME: CONTENT})
CLOSED = FileSource("closed", "http://127.0.0.1:1")


def begun(folder: Path, offset: int = 0) -> LoneFile:
    path = folder / "x.part"
    if offset:
        path.write_bytes(CONTENT[:offset])
    manifest = SNAPSHOT.manifest
    return LoneFile(0, manifest.files[0], path, offset, manifest.hub_path(NAME))


async def run(lone: LoneFile, *sources: FileSource) -> bool:
    return await asyncio.to_thread(lone.run, sources)


def source(hub: FakeHub, token: str = "") -> FileSource:
    return FileSource("hub", hub.url, token)


async def test_it_is_received_hashed_and_written(tmp_path: Path) -> None:
    lone = begun(tmp_path)
    async with FakeHub(SNAPSHOT, token="t0ken", prefix="/below/this") as hub:
        assert await run(lone, source(hub, "t0ken"))
    assert lone.path.read_bytes() == CONTENT
    assert lone.received == len(CONTENT)
    assert not lone.asks


@pytest.mark.parametrize("offset", [1, 128 << 10, len(CONTENT) - 1])
async def test_what_is_there_is_hashed_and_not_asked_for(tmp_path: Path, offset: int) -> None:
    lone = begun(tmp_path, offset)
    async with FakeHub(SNAPSHOT) as hub:
        assert await run(lone, source(hub))
    assert hub.sent == len(CONTENT) - offset
    assert lone.path.read_bytes() == CONTENT


MIDWAY = ("drop:100000", "stall:100000")
FAULTS = ("status:404", "503", "html", "gzip", "norange", "badrange", "truncate", "redirect", *MIDWAY)


@pytest.mark.parametrize("fault", FAULTS)
async def test_where_a_seeder_fails_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(lone_file, "SILENCE", 0.3)
    lone = begun(tmp_path, 1000)
    async with FakeHub(SNAPSHOT, faults=[fault]) as bad, FakeHub(SNAPSHOT) as good:
        assert await run(lone, CLOSED, source(bad), source(good))
    assert lone.path.read_bytes() == CONTENT
    if fault in MIDWAY:
        assert good.sent < len(CONTENT) - 1000, "what the first one sent came again"


@pytest.mark.needs("openssl")
async def test_over_https_the_seeder_has_to_have_the_right_certificate(tmp_path: Path) -> None:
    ca_file, context = authority(tmp_path)
    trusting, distrusting = context_with(ca_file), context_with(None)
    async with FakeHub(SNAPSHOT, tls=context) as hub:
        lone = begun(tmp_path)
        assert not await run(lone, FileSource("hub", hub.url, "", distrusting))
        assert not await run(lone, FileSource("hub", hub.url, "", trusting, "another.test"))
        assert not hub.requests
        assert await run(lone, FileSource("hub", hub.url, "", trusting))
    assert lone.path.read_bytes() == CONTENT


@pytest.mark.needs("openssl")
async def test_over_https_it_stops_in_the_midst_of_a_read(tmp_path: Path) -> None:
    ca_file, context = authority(tmp_path)
    lone = begun(tmp_path)
    async with FakeHub(SNAPSHOT, tls=context, faults=["stall:100000"]) as hub:
        running = asyncio.create_task(run(lone, FileSource("hub", hub.url, "", context_with(ca_file))))
        await eventually(lambda: hub.sent > 0, what="it has begun")
        lone.stop()
        assert not await running
    assert lone.path.read_bytes()[: lone.received] == CONTENT[: lone.received]


async def test_a_host_name_that_no_resolver_takes_is_a_failure_of_the_seeder(tmp_path: Path) -> None:
    async with FakeHub(SNAPSHOT) as hub:
        assert await run(begun(tmp_path), FileSource("odd", f"http://{'x' * 70}.test"), source(hub))


async def test_it_stops_while_it_hashes_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []

    def counted(*arguments: Any) -> Iterator[memoryview]:
        for data in chunks(*arguments):
            hashed.append(len(data))
            yield data

    monkeypatch.setattr(lone_file, "chunks", counted)
    lone = begun(tmp_path, len(CONTENT) - 1)
    lone.stop()
    assert not await run(lone)
    assert len(hashed) == 1


async def test_without_a_seeder_that_answers_it_is_not_whole(tmp_path: Path) -> None:
    lone = begun(tmp_path, 1000)
    async with FakeHub(SNAPSHOT, token="other") as hub:
        assert not await run(lone, CLOSED, source(hub))
    assert lone.received == 1000


async def test_wrong_bytes_are_not_called_right(tmp_path: Path) -> None:
    lone = begun(tmp_path)
    async with FakeHub(SNAPSHOT, faults=["flip"]) as hub:
        assert not await run(lone, source(hub))
    assert lone.received == len(CONTENT)


@pytest.mark.parametrize("fault", ["stall", "stall:100000", "slow:50000"])
async def test_it_stops_in_the_midst_of_a_wait(tmp_path: Path, fault: str) -> None:
    lone = begun(tmp_path)
    async with FakeHub(SNAPSHOT, faults=[fault]) as hub:
        running = asyncio.create_task(run(lone, source(hub), source(hub)))
        await eventually(lambda: bool(hub.requests), what="it is asked")
        await asyncio.sleep(0.1)
        began = time.monotonic()
        lone.stop()
        assert not await running
        assert time.monotonic() - began < lone_file.SILENCE / 2
        assert len(hub.requests) == 1, "another seeder was asked after that"
    assert lone.path.read_bytes()[: lone.received] == CONTENT[: lone.received]


async def test_a_seeder_that_is_left_is_followed_by_the_next_one(tmp_path: Path) -> None:
    lone = begun(tmp_path)
    async with FakeHub(SNAPSHOT, faults=["stall:100000"]) as slow, FakeHub(SNAPSHOT) as good:
        running = asyncio.create_task(run(lone, source(slow), source(good)))
        await eventually(lambda: slow.sent > 0, what="it has begun")
        lone.disconnect()
        assert await running


async def test_stopped_before_it_begins_it_asks_no_seeder(tmp_path: Path) -> None:
    lone = begun(tmp_path)
    lone.stop()
    async with FakeHub(SNAPSHOT) as hub:
        assert not await run(lone, source(hub))
    assert not hub.requests


async def test_a_disk_that_refuses_is_an_error_that_says_so(tmp_path: Path) -> None:
    lone = begun(tmp_path)
    lone.path.symlink_to(tmp_path / "elsewhere")
    async with FakeHub(SNAPSHOT) as hub:
        with pytest.raises(LocalResource):
            await run(lone, source(hub))
    assert not hub.requests


def test_slow_bytes_are_counted_in_small_steps(tmp_path: Path) -> None:
    """A link of 200 KB/s is seen to progress several times a second."""
    lone, steps = begun(tmp_path), list[int]()

    async def download() -> None:
        async with FakeHub(SNAPSHOT, rate=200_000) as hub:
            running = asyncio.create_task(run(lone, source(hub)))
            for _ in range(20):
                await asyncio.sleep(0.05)
                steps.append(lone.received)
            lone.stop()
            await running

    asyncio.run(download())
    assert _largest_step(steps) <= 4 * lone_file.SMALLEST_READ
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("asyncio")]


def _largest_step(steps: Sequence[int]) -> int:
    return max(later - earlier for earlier, later in pairwise(steps))
