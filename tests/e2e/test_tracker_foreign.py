"""A real `p2pmodel coordinator` process and BitTorrent clients of other projects: they find each other."""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import libtorrent as lt
import pytest

from p2pmodel.coordinator.client.catalog import find
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.publishing import publish
from p2pmodel.coordinator.client.urls import in_zone
from p2pmodel.core.content.names import Reference
from p2pmodel.swarm.torrents import Format
from tests.support.coordinators import PUBLISH_TOKEN, token_file
from tests.support.eventually import PATIENCE, eventually
from tests.support.foreign_clients import differences, foreign_client
from tests.support.torrent_files import COMMIT, SMALL, torrent_of

TOKEN = "a-token-of-the-test"


@dataclass(frozen=True, slots=True)
class ForeignTracker:
    process: asyncio.subprocess.Process
    client: Coordinator
    said: Mapping[str, Any]

    @property
    def announce(self) -> str:
        assert self.said["announce"] == f"{self.client.url}/announce"
        return self.client.announce_url


@asynccontextmanager
async def coordinator(
    folder: Path, *options: str, token: str = "", listen: str = "127.0.0.1:0"
) -> AsyncIterator[ForeignTracker]:
    """A coordinator with a publisher, and a member token if `token` is given; its token files lie in `folder`."""
    files = ["--publish-token-file", str(token_file(folder))]
    files += ["--token-file", str(token_file(folder, token))] if token else []
    arguments = ["-m", "p2pmodel", "coordinator", "--listen", listen, "--json", *files, *options]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=pipe, stderr=pipe)
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
        assert line, (await process.communicate())[1].decode()
        said = json.loads(line)
        yield ForeignTracker(process, Coordinator(said["url"], token, PUBLISH_TOKEN), said)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert process.returncode in (0, -signal.SIGKILL)
        assert b"Traceback" not in errors, errors.decode()
        assert TOKEN.encode() not in errors


class DefaultSession:
    """A libtorrent session as a foreign program would have it: default settings, but off the wider network."""

    def __init__(self, address: str) -> None:
        quiet = dict.fromkeys(["enable_dht", "enable_lsd", "enable_upnp", "enable_natpmp"], False)
        self.session = lt.session({"listen_interfaces": f"{address}:0", **quiet})

    def add(self, raw: bytes, folder: Path) -> lt.torrent_handle:
        params = lt.load_torrent_buffer(raw)
        params.save_path = str(folder)
        return self.session.add_torrent(params)


def written(folder: Path, contents: Mapping[str, bytes]) -> Path:
    for path, data in contents.items():
        target = folder / COMMIT / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return folder


async def counts(tracker: ForeignTracker) -> list[tuple[int, int]]:
    async with aiohttp.ClientSession() as session, session.get(f"{tracker.client.url}/catalog") as response:
        return [(t["seeders"], t["leechers"]) for t in (await response.json())["torrents"]]


@pytest.mark.parametrize("form", ["v2", "hybrid", "v1"])
async def test_default_libtorrent_sessions_find_each_other(form: Format, tmp_path: Path) -> None:
    async with coordinator(tmp_path) as tracker:
        raw = torrent_of(SMALL, form, trackers=(tracker.announce,))
        await publish(tracker.client, raw, ["main"])
        seeder, leecher = DefaultSession("127.0.0.2"), DefaultSession("127.0.0.3")
        seeding = seeder.add(raw, written(tmp_path / "a", SMALL))
        await eventually(lambda: seeding.status().is_seeding, what="the seeder has checked its files")
        await eventually(lambda: seeding.status().current_tracker != "", what="the seeder has announced")
        leeching = leecher.add(raw, tmp_path / "b")
        await eventually(lambda: leeching.status().is_seeding, what="the leecher is complete")
        leecher.session.pause()  # releases the files and announces to the tracker
        assert differences(tmp_path / "b" / COMMIT, SMALL) == []
        ((seeders, _),) = await counts(tracker)
        assert seeders >= 1


@pytest.mark.needs("aria2c")
async def test_aria2_finds_a_default_libtorrent_seeder(tmp_path: Path) -> None:
    async with (
        coordinator(tmp_path, "--registered-only") as tracker,
        foreign_client("aria2c", tmp_path / "aria2") as aria2,
    ):
        raw = torrent_of(SMALL, "v1", trackers=(tracker.announce,))
        await publish(tracker.client, raw, ["main"])
        seeder = DefaultSession("127.0.0.1")
        seeding = seeder.add(raw, written(tmp_path / "a", SMALL))
        await eventually(lambda: seeding.status().current_tracker != "", what="the seeder has announced")
        torrent = tmp_path / "v1.torrent"
        await asyncio.to_thread(torrent.write_bytes, raw)
        await aria2.download(torrent, tmp_path / "b")
        assert differences(tmp_path / "b" / COMMIT, SMALL) == []


async def test_a_key_and_a_registered_torrent_are_required(tmp_path: Path) -> None:
    async with coordinator(tmp_path, "--registered-only", token=TOKEN) as tracker:
        assert TOKEN not in json.dumps(tracker.said)
        announce = tracker.announce
        known = torrent_of(SMALL, trackers=(announce,))
        await publish(tracker.client, known, ["main"])
        refusals = {}
        for name, raw in {
            "known": known,
            "unknown": torrent_of(SMALL, commit="b" * 40, trackers=(announce,)),
            "no key": torrent_of(SMALL, trackers=(f"{tracker.said['url']}/announce",)),
        }.items():
            session = DefaultSession("127.0.0.1")
            session.session.apply_settings({"alert_mask": lt.alert.category_t.tracker_notification})
            handle = session.add(raw, tmp_path / name)
            refusals[name] = await tracker_word(session)
            session.session.remove_torrent(handle)
        assert refusals["known"] is None
        assert "not registered" in refusals["unknown"]
        assert "token" in refusals["no key"]


async def tracker_word(session: DefaultSession) -> str | None:
    """The first tracker's answer: None for a welcome, else the failure reason."""
    words: list[str | None] = []

    def collect() -> bool:
        for alert in session.session.pop_alerts():
            if isinstance(alert, lt.tracker_reply_alert):
                words.append(None)
            elif isinstance(alert, lt.tracker_error_alert):
                words.append(alert.failure_reason() or alert.message())
        return bool(words)

    await eventually(collect, what="the tracker answers")
    return words[0]


@pytest.mark.parametrize("token", ["", TOKEN])
async def test_libtorrent_keeps_the_zone_in_a_trackers_url(token: str, tmp_path: Path) -> None:
    """Two zones of two clients: each receives the peers of its own zone and, as a gateway, of the other zone.

    The third of a zone receives its own only. The number of peers a client receives shows its assigned zone.
    """
    async with coordinator(tmp_path, token=token) as tracker:
        told, sessions = [], []
        for number, zone in enumerate(["a", "a", "b", "b", "a"]):
            session = DefaultSession(f"127.0.0.{2 + number}")
            session.session.apply_settings({"alert_mask": lt.alert.category_t.tracker_notification})
            url = in_zone(tracker.announce, zone)
            session.add(torrent_of(SMALL, trackers=(url,)), tmp_path / str(number))
            told.append(await peers_told(session))
            sessions.append(session)
        assert told == [0, 1, 2, 3, 2]


async def peers_told(session: DefaultSession) -> int:
    """How many peers the tracker's first answer has."""
    replies: list[int] = []

    def collect() -> bool:
        alerts = session.session.pop_alerts()
        replies.extend(alert.num_peers for alert in alerts if isinstance(alert, lt.tracker_reply_alert))
        return bool(replies)

    await eventually(collect, what="the tracker answers")
    return replies[0]


async def test_the_catalog_outlives_a_kill(tmp_path: Path) -> None:
    options = ("--state-dir", str(tmp_path / "state"))
    raw = torrent_of(SMALL)
    async with coordinator(tmp_path, *options) as tracker:
        await publish(tracker.client, raw, ["main"])
        tracker.process.kill()
        await tracker.process.wait()
    async with coordinator(tmp_path, *options) as tracker:
        assert tracker.said["torrents"] == 1
        assert (await find(Reference.parse("org/tiny"), [tracker.client], 5)).metainfo.raw == raw


async def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    async with coordinator(tmp_path) as tracker:
        taken = tracker.said["url"].removeprefix("http://")
        arguments = ["-m", "p2pmodel", "coordinator", "--listen", taken]
        pipe = asyncio.subprocess.PIPE
        second = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=pipe, stderr=pipe)
        said, errors = await asyncio.wait_for(second.communicate(), PATIENCE)
        assert second.returncode == 7
        assert said == b""
        assert errors.decode().count("\n") == 1
        assert "the port is in use" in errors.decode()
