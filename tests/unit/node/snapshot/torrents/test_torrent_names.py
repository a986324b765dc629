"""The name of a snapshot that came by a torrent: `main` only if that is safe."""

import asyncio
from pathlib import Path

import pytest

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.config.settings import Settings
from p2pmodel.node.snapshot.torrents.torrent_names import names_of
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import HubCache
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import HubSnapshot, snapshot_of
from tests.support.recording_reporter import RecordingReporter
from tests.support.stored import publish

OLD = snapshot_of({"config.json": b"old"})
NEW = snapshot_of({"config.json": b"new"})
DEAD = "http://127.0.0.1:9"


class Place:
    """A cache, and what the search for a name noted."""

    def __init__(self, root: Path) -> None:
        self.cache = HubCache(root)
        self.settings = Settings(cache_dir=root, mirrors=(), origin=OriginSettings(connect_timeout=2, patience=0.1))
        self.notes: list[str] = []

    async def names(self, endpoint: str, snapshot: HubSnapshot = OLD) -> tuple[str, ...]:
        async with Origin((MirrorSettings(name="m", endpoint=endpoint),), self.settings.origin) as origin:
            reporter = RecordingReporter(note=self.notes.append)
            return await names_of(snapshot.manifest, self.settings, self.cache, origin, reporter)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "hub")


async def test_a_commit_that_a_mirror_calls_main_is_named_so(place: Place) -> None:
    async with FakeHub(OLD) as hub:
        assert await place.names(hub.url) == ("main",)
    assert place.notes == []


async def test_another_commit_is_not_named_and_how_to_name_it_is_said(place: Place) -> None:
    async with FakeHub(NEW) as hub:
        assert await place.names(hub.url) == ()
    assert "--as-ref" in place.notes[0]


async def test_without_an_answer_the_name_is_taken_only_if_it_is_free(place: Place) -> None:
    assert await place.names(DEAD) == ("main",)
    assert "no mirror says" in place.notes[0]
    await asyncio.to_thread(publish, place.cache, NEW)
    assert await place.names(DEAD) == ()
    assert await place.names(DEAD, NEW) == ("main",)
