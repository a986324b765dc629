"""Properties of the real engine only: sockets, threads, trackers, formats and limits."""

import asyncio
import os
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from p2pmodel.coordinator.tracker.announce_texts import pieces_in, warning_text
from p2pmodel.errors import InvalidInput, LocalResource, Unavailable
from p2pmodel.swarm.engine import AddTorrent, EngineSettings, TrackerAnswered, TrackerWarned
from p2pmodel.swarm.libtorrent import torrent as libtorrent_torrent
from p2pmodel.swarm.libtorrent.add_params import load
from p2pmodel.swarm.libtorrent.engine import LibtorrentEngine
from p2pmodel.swarm.libtorrent.torrent import LibtorrentTorrent
from p2pmodel.swarm.torrents import parse
from tests.support.corrupt_peer import corrupt_copy
from tests.support.eventually import PATIENCE, eventually
from tests.support.torrent_files import torrent_of

PIECE = 1 << 15
CONTENTS = {"a.safetensors": os.urandom(50 * PIECE + 7), "b.bin": os.urandom(3 * PIECE), "c.json": b"{}"}


def torrent(form: str = "v2", **sources: tuple[str, ...]) -> bytes:
    return torrent_of(CONTENTS, form, piece_length=PIECE, **sources)


def stored(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in CONTENTS.items():
        (folder / name).write_bytes(data)
    return folder


def seeding(raw: bytes, folder: Path, **request: object) -> AddTorrent:
    """The request of a seeder with files in `folder`."""
    info = load(raw).ti
    assert info is not None
    files = info.files()
    names = {
        index: files.file_path(index).partition("/")[2]
        for index in range(files.num_files())
        if not files.file_flags(index) & 1
    }
    return AddTorrent(raw, folder, names, have=frozenset(range(info.num_pieces())), **request)


async def until_complete(node: LibtorrentTorrent, raw: bytes, seconds: float = PATIENCE) -> None:
    info = load(raw).ti
    assert info is not None
    async with asyncio.timeout(seconds):
        while len(node.status().have) < info.num_pieces():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await node.flush()


@asynccontextmanager
async def http_server(answer: bytes) -> AsyncIterator[tuple[str, list[str]]]:
    """Answers everything with `answer`; gives its URL and the list of requests."""
    requests: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        requests.append(request.raw_path)
        return web.Response(body=answer)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0]
        yield f"http://{host}:{port}", requests
    finally:
        await runner.cleanup()


async def test_a_web_seed_in_the_torrent_is_never_used(tmp_path: Path) -> None:
    async with http_server(b"") as (url, requests), LibtorrentEngine() as engine:
        raw = torrent(webseeds=(f"{url}/org/tiny/resolve/",), trackers=(f"{url}/announce",))
        node = await engine.add(AddTorrent(raw, tmp_path, {}))
        await asyncio.sleep(1)
        assert node.status().have == frozenset()
        assert requests == []


async def test_trackers_receive_our_start_and_stop_and_announces_on_demand(tmp_path: Path) -> None:
    """At any path, on loopback: libtorrent's SSRF protection would silently leave out what is not /announce."""
    async with http_server(b"d8:intervali1800e5:peers0:e") as (url, requests):
        tracker = f"{url}/t/token/announce"
        async with LibtorrentEngine() as engine:
            node = await engine.add(seeding(torrent(), stored(tmp_path), trackers=(tracker,)))
            async with asyncio.timeout(PATIENCE), aclosing(node.events()) as events:
                assert await anext(events) == TrackerAnswered(tracker, 0)
                node.announce()
                assert await anext(events) == TrackerAnswered(tracker, 0)
        assert [path.partition("?")[0] for path in requests] == ["/t/token/announce"] * 3
        assert ["started" in requests[0], "stopped" in requests[-1]] == [True, True]


async def test_the_warning_of_a_tracker_is_passed_on(tmp_path: Path) -> None:
    text = warning_text([3, 17]).encode()
    answer = b"d8:intervali1800e5:peers0:15:warning message%d:%se" % (len(text), text)
    async with http_server(answer) as (url, _), LibtorrentEngine() as engine:
        node = await engine.add(seeding(torrent(), stored(tmp_path), trackers=(f"{url}/announce",)))
        async with asyncio.timeout(PATIENCE), aclosing(node.events()) as events:
            found = [await anext(events), await anext(events)]
        [warned] = [event for event in found if isinstance(event, TrackerWarned)]
        assert pieces_in(warned.message) == (3, 17)


async def test_a_tracker_that_hangs_does_not_hold_the_end(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tracker = f"http://127.0.0.1:{silent.getsockname()[1]}/announce"
        async with asyncio.timeout(PATIENCE), LibtorrentEngine() as engine:
            await engine.add(seeding(torrent(), stored(tmp_path), trackers=(tracker,)))
            await asyncio.sleep(0.1)


def held() -> tuple[int, int]:
    """Open files and threads of this process, without those of the loop's executor: it starts them as it needs them."""
    executor = sum(thread.name.startswith("asyncio_") for thread in threading.enumerate())
    return len(list(Path("/proc/self/fd").iterdir())), len(list(Path("/proc/self/task").iterdir())) - executor


async def assert_no_more_than(before: tuple[int, int]) -> None:
    """Fewer, when something of an earlier test has ended meanwhile; and a moment later: the kernel lists a thread for a
    little while after it was joined."""

    def files_and_threads() -> bool:
        return all(now <= then for now, then in zip(held(), before, strict=True))

    await eventually(files_and_threads, what=f"no more than {before} files and threads")


async def test_a_closed_engine_releases_files_and_threads(tmp_path: Path) -> None:
    async def open_and_close() -> None:
        async with LibtorrentEngine() as seeder, LibtorrentEngine(EngineSettings(host="127.0.0.2")) as engine:
            await seeder.add(seeding(torrent(), stored(tmp_path / "source")))
            node = await engine.add(AddTorrent(torrent(), tmp_path / "target", {}, peers=(seeder.address,)))
            await until_complete(node, torrent())

    await open_and_close()  # what the process opens once
    before = held()
    for _ in range(3):
        await open_and_close()
    await assert_no_more_than(before)


async def test_an_engine_that_could_not_start_leaves_no_files_or_threads() -> None:
    before = held()
    with pytest.raises(LocalResource, match=r"192\.0\.2\.1"):
        async with LibtorrentEngine(EngineSettings(host="192.0.2.1")):
            pass
    with pytest.raises(InvalidInput, match="localhost"):
        async with LibtorrentEngine(EngineSettings(host="localhost")):
            pass
    engine = LibtorrentEngine()
    with pytest.raises(Unavailable):
        _ = engine.address
    await assert_no_more_than(before)


@pytest.mark.parametrize("form", ["v1", "hybrid"])
async def test_an_export_of_another_format_is_seeded_from_the_same_files(tmp_path: Path, form: str) -> None:
    source = stored(tmp_path / "source")
    async with LibtorrentEngine() as seeder, LibtorrentEngine(EngineSettings(host="127.0.0.2")) as engine:
        await seeder.add(seeding(torrent(), source))
        await seeder.add(seeding(torrent(form), source))
        node = await engine.add(AddTorrent(torrent(form), tmp_path / "target", {}, peers=(seeder.address,)))
        await until_complete(node, torrent(form))
        root = tmp_path / "target" / parse(torrent()).manifest.commit
        assert all((root / name).read_bytes() == data for name, data in CONTENTS.items())
        await node.remove()
        assert all((source / name).read_bytes() == data for name, data in CONTENTS.items())


async def test_limits_hold_on_loopback(tmp_path: Path) -> None:
    limited = EngineSettings(host="127.0.0.2", download_limit=1_000_000)
    async with LibtorrentEngine() as seeder, LibtorrentEngine(limited) as engine:
        await seeder.add(seeding(torrent(), stored(tmp_path / "source")))
        started = time.monotonic()
        node = await engine.add(AddTorrent(torrent(), tmp_path / "target", {}, peers=(seeder.address,)))
        await eventually(lambda: engine.rates.download > 0 < seeder.rates.upload, what="both report a rate")
        await until_complete(node, torrent())
        assert time.monotonic() - started > 0.7 * sum(map(len, CONTENTS.values())) / 1_000_000
        assert (engine.rates.upload, seeder.rates.download) == (0, 0)


async def test_a_limit_that_is_lifted_lets_the_rest_through(tmp_path: Path) -> None:
    limited = EngineSettings(host="127.0.0.2", download_limit=20_000)
    async with LibtorrentEngine() as seeder, LibtorrentEngine(limited) as engine:
        await seeder.add(seeding(torrent(), stored(tmp_path / "seed")))
        node = await engine.add(AddTorrent(torrent(), tmp_path / "peer", {}, peers=(seeder.address,)))
        with pytest.raises(TimeoutError):
            await until_complete(node, torrent(), seconds=1)
        engine.limit(upload=0, download=0)
        await until_complete(node, torrent())


async def test_a_peer_that_sends_some_blocks_wrong_does_not_stop_a_download(tmp_path: Path) -> None:
    """Either of the two may be banned briefly (see bans.py), but all pieces are downloaded and verified."""
    raw = torrent()
    metainfo = parse(raw)
    source = stored(tmp_path / "source")
    folder = tmp_path / "bad"
    folder.mkdir()
    files = corrupt_copy(metainfo, source, folder, rate=0.2, seed=3)
    async with (
        LibtorrentEngine() as good,
        LibtorrentEngine(EngineSettings(host="127.0.0.66")) as bad,
        LibtorrentEngine(EngineSettings(host="127.0.0.2")) as engine,
    ):
        every = frozenset(range(metainfo.layout.piece_count))
        await bad.add(AddTorrent(raw, folder, files, have=every))
        await good.add(seeding(raw, source))
        node = await engine.add(AddTorrent(raw, tmp_path / "target", {}, peers=(good.address, bad.address)))
        await until_complete(node, raw)
        root = tmp_path / "target" / metainfo.manifest.commit
        assert all((root / name).read_bytes() == data for name, data in CONTENTS.items())


async def test_there_is_no_parole_while_pieces_with_padding_alone_are_missing(tmp_path: Path) -> None:
    def parole(engine: LibtorrentEngine) -> bool:
        return bool(engine._live()._live().get_settings()["use_parole_mode"])

    raw = torrent()
    span = next(span for span in parse(raw).layout.spans if span.path == "a.safetensors")
    others = frozenset(range(parse(raw).layout.piece_count)) - {span.pieces[-1]}
    async with LibtorrentEngine() as engine:
        seeder = await engine.add(seeding(raw, stored(tmp_path / "source")))
        assert parole(engine)
        await seeder.remove()
        node = await engine.add(AddTorrent(raw, tmp_path / "target", {}, have=others))
        assert not parole(engine)
        assert await node.feed(span.pieces[-1], CONTENTS["a.safetensors"][50 * PIECE :])
        await eventually(lambda: parole(engine), what="parole")


async def test_peers_are_held_back_while_the_engine_waits_long_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libtorrent_torrent, "HOLD_AFTER", 0.0)
    raw = torrent()
    async with (
        LibtorrentEngine(EngineSettings("127.0.0.1")) as seeder,
        LibtorrentEngine(EngineSettings("127.0.0.2")) as peer,
    ):
        await seeder.add(seeding(raw, stored(tmp_path / "seed")))
        node = await peer.add(AddTorrent(raw, tmp_path / "peer", {}))
        handle = node._live()
        async with node._fence():
            async with node._fence():
                await asyncio.sleep(0.01)
                assert handle.download_limit() == 1
                node.connect(*seeder.address)
            assert handle.download_limit() == 1, "the other fence still stands"
            await asyncio.sleep(0.5)
            assert node.status().have == frozenset()
        assert handle.download_limit() <= 0
        await until_complete(node, raw)


async def test_a_quick_disk_stops_no_peer(tmp_path: Path) -> None:
    async with LibtorrentEngine(EngineSettings("127.0.0.1")) as engine:
        node = await engine.add(AddTorrent(torrent(), tmp_path, {}))
        async with node._fence():
            assert node._live().download_limit() <= 0
        await asyncio.sleep(libtorrent_torrent.HOLD_AFTER + 0.05)
        assert node._live().download_limit() <= 0


async def test_after_a_long_wait_for_the_disk_the_next_holds_peers_back_at_once(tmp_path: Path) -> None:
    async with LibtorrentEngine(EngineSettings("127.0.0.1")) as engine:
        node = await engine.add(AddTorrent(torrent(), tmp_path, {}))
        async with node._fence():
            await asyncio.sleep(libtorrent_torrent.HOLD_AFTER + 0.01)
        for expected in (True, False):  # the second wait was short
            async with node._fence():
                await asyncio.sleep(0.01)
                assert (node._live().download_limit() == 1) == expected
