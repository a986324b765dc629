"""A download that is cancelled while its file is published."""

import asyncio
import threading
from pathlib import Path

import pytest

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.node.snapshot.file_download import download_file
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import HubCache
from p2pmodel.store.growing_file import GrowingFiles
from tests.support.eventually import PATIENCE
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of


async def test_a_cancelled_download_ends_after_the_thread_that_publishes_its_file(tmp_path: Path) -> None:
    snapshot = snapshot_of({"model.safetensors": b"weights" * 1000})
    file, repo = snapshot.manifest.files[0], HubCache(tmp_path / "hub").repo(snapshot.manifest.repo)
    staged = repo.staged.path_of(file)
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def publish() -> None:
        begun.set()
        may_end.wait(PATIENCE)
        staged.rename(tmp_path / "published")
        ended.set()

    async with (
        FakeHub(snapshot) as hub,
        Origin([MirrorSettings(name="m", endpoint=hub.url)], OriginSettings()) as origin,
    ):
        growing = GrowingFiles().file(repo, file)
        download = asyncio.create_task(download_file(origin, snapshot.manifest, growing, staged, publish=publish))
        await asyncio.to_thread(begun.wait, PATIENCE)
        download.cancel()
        await asyncio.sleep(0.05)
        assert not download.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await download
    assert ended.is_set()
    assert not staged.exists()
