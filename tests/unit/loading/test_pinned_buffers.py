"""Tensors go through a few buffers to a device that copies late, in the order in which they arrive."""

import asyncio
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from p2pmodel.errors import LocalResource
from p2pmodel.loading.arrival import arriving_model
from p2pmodel.loading.arrival.arrival_watch import ArrivalWatch
from p2pmodel.loading.arrival.overlap import ArrivingSnapshot, load_while_arriving
from p2pmodel.loading.arrival.tensor_order import TensorRange
from p2pmodel.loading.model import load
from p2pmodel.loading.options import LoadOptions
from p2pmodel.loading.pinned_buffers import CopyDevice, DeviceRing
from p2pmodel.store.arriving_file import ArrivingFile
from p2pmodel.store.cache import HubCache
from p2pmodel.store.files import partial_file
from p2pmodel.store.files.range_set import RangeSet
from tests.support.eventually import PATIENCE
from tests.support.hub_snapshot import snapshot_of
from tests.support.late_copies import LateCopies
from tests.support.slow_download import SlowDownload
from tests.support.stored import publish

DATA = random.Random(5).randbytes(1 << 18)
SHARD = "model.safetensors"
SIZES = [1, 4096, 5000, 60_000, 3, 12_288, 70_000]


def places() -> list[TensorRange]:
    found, start = [], 0
    for number, size in enumerate(SIZES):
        found.append(TensorRange(f"t{number}", SHARD, start, start + size))
        start += size
    return found


@pytest.fixture
def late() -> Iterator[LateCopies]:
    device = LateCopies()
    yield device
    device.close()


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[ArrivalWatch]:
    snapshot, cache = snapshot_of({SHARD: DATA}), HubCache(tmp_path / "hub")
    publish(cache, snapshot)
    repo = cache.repo(snapshot.manifest.repo)
    repo.mark_verified(snapshot.manifest.files)
    found = ArrivalWatch({SHARD: ArrivingFile(repo, snapshot.file(SHARD))})
    found.look()
    yield found
    found.close()


@pytest.mark.parametrize("buffers", [1, 2, 4])
def test_every_tensor_has_its_bytes(watch: ArrivalWatch, late: LateCopies, buffers: int) -> None:
    with DeviceRing(watch, places(), late, buffers=buffers, size=4096) as ring:
        for place in reversed(places()):
            assert bytes(ring.take(place.name).numpy()) == DATA[place.start : place.end], place
    assert late.buffers == buffers
    assert late.allocated == sum(SIZES), "each byte has one place on the device"


def test_the_parts_of_a_large_tensor_are_copied_as_they_arrive(tmp_path: Path) -> None:
    """All but its last bytes are on the device before these come."""
    snapshot, cache, device = snapshot_of({SHARD: DATA}), HubCache(tmp_path / "hub"), LateCopies()
    repo = cache.repo(snapshot.manifest.repo)
    arriving = ArrivingFile(repo, snapshot.file(SHARD))
    watch, size = ArrivalWatch({SHARD: arriving}), 1 << 12
    copied: list[int] = []
    copy = device.copy

    def note(target: torch.Tensor, source: torch.Tensor) -> object:
        copied.append(source.numel())
        return copy(target, source)

    device.copy = note  # type: ignore[method-assign,assignment]
    publish(cache, snapshot)
    repo.mark_verified(snapshot.manifest.files)
    watch.look()
    whole, arriving.arrived = arriving.arrived, RangeSet([(0, len(DATA) - 1)])
    with DeviceRing(watch, [TensorRange("t", SHARD, 0, len(DATA))], device, size=size) as ring:
        taking = ThreadPoolExecutor(1).submit(ring.take, "t")
        deadline = time.monotonic() + PATIENCE
        while sum(copied) < len(DATA) - size and time.monotonic() < deadline:
            time.sleep(0.01)
        assert sum(copied) == len(DATA) - size
        assert not taking.done()
        arriving.arrived = whole
        watch.wake()
        assert bytes(taking.result(PATIENCE).numpy()) == DATA
    assert device.allocated == len(DATA)
    device.close()
    watch.close()


class NoWait(LateCopies):
    """A ring that does not wait for a busy buffer behaves like one on this device."""

    def wait(self, ticket: object) -> None:
        pass


def test_the_device_shows_a_ring_that_does_not_wait(watch: ArrivalWatch) -> None:
    device = NoWait(delay=0.02)
    with DeviceRing(watch, places(), device, buffers=2, size=4096) as ring:
        got = [bytes(ring.take(place.name).numpy()) for place in places()]
    device.close()
    assert got != [DATA[place.start : place.end] for place in places()]


def test_nothing_is_copied_before_the_first_tensor_is_taken(watch: ArrivalWatch, late: LateCopies) -> None:
    with DeviceRing(watch, places(), late, size=4096):
        pass
    assert (late.buffers, late.allocated) == (0, 0)


def test_a_copy_that_fails_ends_all_waits(watch: ArrivalWatch) -> None:
    device = LateCopies(broken=LocalResource("the device is gone"))
    with DeviceRing(watch, places(), device, size=4096) as ring:
        for place in places()[:2]:
            with pytest.raises(LocalResource, match="the device is gone"):
                ring.take(place.name)
    device.close()


def test_a_failure_of_the_arrivals_ends_a_wait_for_a_tensor(tmp_path: Path, late: LateCopies) -> None:
    snapshot = snapshot_of({SHARD: DATA})
    nothing = ArrivingFile(HubCache(tmp_path).repo(snapshot.manifest.repo), snapshot.file(SHARD))
    watch = ArrivalWatch({SHARD: nothing})
    watch.fail(LocalResource("the disk is full"))
    with DeviceRing(watch, places(), late, size=4096) as ring, pytest.raises(LocalResource, match="the disk is full"):
        ring.take("t0")


@pytest.mark.parametrize("kind", ["dense", "moe", "fp8_moe"])
async def test_a_model_through_the_ring_is_the_same(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, but its device is this host."""
    snapshot: Path = request.getfixturevalue(kind)
    devices: list[LateCopies] = []

    def ring(
        self: arriving_model.ArrivingModel, _place: str, config: object, ordered: object, slices: object, stack: object
    ) -> object:
        devices.append(LateCopies())
        return ringed(self, devices[-1], config, ordered, slices, stack)

    ringed = arriving_model.ArrivingModel.ring_on
    monkeypatch.setattr(arriving_model.ArrivingModel, "rings", ring)
    monkeypatch.setattr(partial_file, "RECORD_EVERY", 1)
    download = SlowDownload.of(snapshot, tmp_path, chunk=3000)
    downloading = asyncio.create_task(download.run())
    manifest = download.snapshot.manifest
    loaded = await load_while_arriving(
        ArrivingSnapshot(download.repo, manifest, manifest.files), download.complete.wait(), LoadOptions(device="cpu")
    )
    await downloading
    devices[0].close()
    assert devices[0].allocated > 0
    expected = load(snapshot, device="cpu").model.state_dict()
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_the_port_is_met(late: LateCopies) -> None:
    device: CopyDevice = late
    assert device.done(device.copy(device.empty(1), device.buffer(1))) in (True, False)
