"""The URLs that a BitTorrent client requests from a web seed: always those of the hub, for every snapshot shape."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import libtorrent as lt
import pytest

from p2pmodel.swarm.torrents import Format, webseed_url
from tests.support.eventually import eventually
from tests.support.hub_files import serve_hub_files
from tests.support.torrent_files import COMMIT, SMALL, Contents, manifest_of, torrent_of

QUIET = {
    "listen_interfaces": "127.0.0.1:0",
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "tick_interval": 100,
}
SHAPES: dict[str, Contents] = {
    "one file": {"model.safetensors": b"w" * 300_000},
    "one nested file": {"onnx/model.onnx": b"w" * 300_000},
    "one file and an empty one": {"empty": b"", "model.safetensors": b"w" * 300_000},
    "several": SMALL,
}


@asynccontextmanager
async def joined(torrent: bytes, folder: Path) -> AsyncIterator[lt.torrent_handle]:
    session = lt.session(QUIET)
    params = lt.load_torrent_buffer(torrent)
    params.save_path = str(folder)
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    handle = session.add_torrent(params)
    try:
        yield handle
    finally:
        session.pause()
        del handle, session


@pytest.mark.parametrize("form", ["v2", "hybrid", "v1"])
@pytest.mark.parametrize("shape", SHAPES)
async def test_libtorrent_requests_hub_urls_and_finishes(shape: str, form: Format, tmp_path: Path) -> None:
    contents = SHAPES[shape]
    async with serve_hub_files("org/tiny", COMMIT, contents) as server:
        seed = webseed_url(server.base, manifest_of(contents), form)
        async with joined(torrent_of(contents, form, webseeds=(seed,)), tmp_path) as handle:
            await eventually(lambda: bool(handle.status().is_seeding), what="all pieces by webseed")
        wanted = {f"/org/tiny/resolve/{COMMIT}/{path}" for path, data in contents.items() if data}
        assert server.paths == wanted
        assert server.answers <= {200, 206}
