"""A load that is cancelled while its libraries are imported leaves nothing behind, not even a warning."""

import asyncio
import gc
import threading

import pytest

from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import InvalidInput
from p2pmodel.loading import optional_imports
from p2pmodel.loading.arrival.overlap import ArrivingSnapshot, load_while_arriving
from p2pmodel.loading.options import LoadOptions
from p2pmodel.store.cache import HubCache
from tests.support.eventually import PATIENCE


@pytest.fixture
def snapshot(tmp_path) -> ArrivingSnapshot:
    manifest = Manifest(RepoId("org/model"), "0" * 40, ())
    return ArrivingSnapshot(HubCache(tmp_path, tmp_path).repo(manifest.repo), manifest, ())


async def test_a_cancellation_during_the_imports(snapshot: ArrivingSnapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, end = threading.Event(), threading.Event()

    def require() -> None:
        begun.set()
        assert end.wait(PATIENCE)

    monkeypatch.setattr(optional_imports, "require", require)
    loading = asyncio.create_task(load_while_arriving(snapshot, asyncio.Event().wait()))
    assert await asyncio.to_thread(begun.wait, PATIENCE)
    loading.cancel()
    end.set()
    with pytest.raises(asyncio.CancelledError):
        await loading
    gc.collect()  # an unawaited coroutine warns here, which is an error in tests


async def test_wrong_options(snapshot: ArrivingSnapshot) -> None:
    with pytest.raises(InvalidInput, match="'tpu' is not a device name"):
        await load_while_arriving(snapshot, asyncio.Event().wait(), LoadOptions(device="tpu"))
    gc.collect()
