"""SIGHUP: changed settings are applied, others are named, and what cannot be read leaves everything as it is."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from p2pmodel.config.settings import Settings
from p2pmodel.core.notes import Note
from p2pmodel.errors import InvalidInput
from p2pmodel.service.roles.reload import Reload


class Site:
    """Settings that a test changes, and the reload of a server with them."""

    def __init__(self, settings: Settings) -> None:
        self.now = settings
        self.wrong: InvalidInput | None = None
        self.notes: list[Note] = []
        self.applied: list[int] = []
        self.reload = Reload(settings, self.read, lambda line: self.notes.append(Note.of(line)))
        keys = ("swarm.upload_limit", "swarm.download_limit")
        self.reload.setting(*keys, apply=lambda now: self.applied.append(now.swarm.download_limit))

    def read(self) -> Settings:
        if self.wrong:
            raise self.wrong
        return self.now

    def set_swarm(self, **values: object) -> None:
        self.now = self.now.model_copy(update={"swarm": self.now.swarm.model_copy(update=values)})

    def events(self) -> list[str]:
        return [note.event for note in self.notes]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(Settings(cache_dir=tmp_path, mirrors=()))


async def test_changed_settings_are_applied_once_and_unchanged_ones_not(site: Site) -> None:
    await site.reload.reload()
    assert site.applied == []
    site.set_swarm(download_limit=5000, upload_limit=7000)
    await site.reload.reload()
    await site.reload.reload()
    assert site.applied == [5000]
    assert site.events() == ["reloaded", "setting_changed", "setting_changed", "reloaded", "reloaded"]


async def test_a_setting_that_needs_a_restart_is_named(site: Site) -> None:
    site.set_swarm(zone="rack-7")
    await site.reload.reload()
    assert site.applied == []
    assert "the setting swarm.zone changes at a restart" in site.notes


async def test_settings_that_cannot_be_read_stay_as_before(site: Site) -> None:
    site.wrong = InvalidInput("setting swarm.zone: too long", hint="shorten it")
    await site.reload.reload()
    assert site.notes[0] == "settings: unchanged, setting swarm.zone: too long; shorten it"
    site.wrong = None
    site.set_swarm(download_limit=1)
    await site.reload.reload()
    assert site.applied == [1]


async def test_a_file_that_cannot_be_read_does_not_keep_the_others_back(site: Site) -> None:
    read: list[str] = []

    def missing() -> None:
        raise InvalidInput("there is no file t")

    site.reload.file("token file", missing)
    site.reload.file("TLS certificate", lambda: read.append("certificate"))
    await site.reload.reload()
    assert read == ["certificate"]
    assert site.notes[0] == "token file: unchanged, there is no file t"
    assert site.events() == ["reload_failed", "reloaded"]


async def test_a_request_during_a_reload_is_not_lost(site: Site) -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()
    reads: list[Callable[[], bool]] = []

    def again() -> None:
        reads.append(lambda: True)
        loop.call_soon_threadsafe(begun.set)

    site.reload.file("token file", again)
    running = asyncio.create_task(site.reload.run())
    site.reload.request()
    await begun.wait()
    begun.clear()
    site.reload.request()
    await begun.wait()
    running.cancel()
    assert len(reads) >= 2


async def test_works_come_last_and_one_that_fails_is_noted(site: Site) -> None:
    done: list[str] = []

    async def work() -> None:
        done.append("work")
        if len(done) > 2:
            raise InvalidInput("no such signers")

    site.reload.file("token file", lambda: done.append("file"))
    site.reload.work("signatures", work)
    await site.reload.reload()
    assert (done, site.events()) == (["file", "work"], ["reloaded"])
    await site.reload.reload()
    assert site.events()[1:] == ["reload_failed", "reloaded"]
