"""Sources that stop at a boundary: a mirror that sends a weight file up to it, and peers that have what precedes it."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from p2pmodel.swarm.engine import AddTorrent, EngineSettings
from p2pmodel.swarm.libtorrent.engine import LibtorrentEngine
from p2pmodel.swarm.metainfo import Metainfo
from p2pmodel.swarm.torrents import build, layout_of, parse
from scripts.load_faults.model import Boundary
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import HubSnapshot
from tests.support.torrent_files import trees_of


class StoppingHub(FakeHub):
    """Sends `boundary.shard` up to `boundary.offset`, sets `reached`, and waits until it is told to go on or to die."""

    def __init__(self, snapshot: HubSnapshot, boundary: Boundary, *, host: str) -> None:
        super().__init__(snapshot, host=host)
        self.reached = asyncio.Event()
        self._boundary = boundary
        self._go_on = asyncio.Event()
        self._dead = False

    def go_on(self) -> None:
        """Send the rest."""
        self._go_on.set()

    def die(self) -> None:
        """Break off all connections, and answer no more."""
        self._dead = True
        self._go_on.set()

    async def _send(self, request: web.Request, path: str) -> web.StreamResponse:
        if self._dead:
            return self._broken_off(request)
        return await super()._send(request, path)

    async def _stream(self, request: web.Request, response: web.StreamResponse, body: memoryview, fault: Any) -> None:
        path = request.match_info["path"]
        start = int(response.headers.get("Content-Range", "bytes 0-").removeprefix("bytes ").partition("-")[0])
        before = max(0, self._boundary.offset - start)
        if path != self._boundary.shard or self._go_on.is_set():
            await super()._stream(request, response, body, fault)
            return
        await super()._stream(request, response, body[:before], fault)
        self.reached.set()
        await self._go_on.wait()
        if self._dead:
            self._broken_off(request)
        elif before < len(body):
            await super()._stream(request, response, body[before:], fault)

    @staticmethod
    def _broken_off(request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=503)


class Torrents:
    """The torrent of a snapshot, and peers that have all of it or some."""

    def __init__(self, snapshot: HubSnapshot, folder: Path) -> None:
        manifest = snapshot.manifest
        contents = {path: bytes(data) for path, data in snapshot.contents.items()}
        self.snapshot = snapshot
        self.metainfo: Metainfo = parse(build(manifest, trees_of(contents, layout_of(manifest).piece_length)))
        self.path = folder / "model.torrent"
        self.path.write_bytes(self.metainfo.raw)
        self._folder = folder

    @property
    def all(self) -> frozenset[int]:
        """All pieces."""
        return frozenset(range(self.metainfo.layout.piece_count))

    def up_to(self, boundary: Boundary) -> frozenset[int]:
        """The pieces of all files that no tensor is in, and of the weight files up to that of the boundary."""
        return frozenset(
            piece
            for span in self.metainfo.layout.spans
            if not span.path.endswith(".safetensors") or span.path <= boundary.shard
            for piece in span.pieces
        )

    def size_of(self, pieces: Iterable[int]) -> int:
        """Bytes of these pieces."""
        return sum(self.metainfo.layout.piece_range(piece).length for piece in pieces)

    @asynccontextmanager
    async def peer(
        self, host: str, have: frozenset[int], *, of: HubSnapshot | None = None, to: tuple[str, int] | None = None
    ) -> AsyncIterator[tuple[str, int]]:
        """A peer at `host` while the context lasts; yields its address. It connects to `to`. `of`: where the
        bytes that it sends are from."""
        folder = self._folder / f"peer-{host}"
        contents = (of or self.snapshot).contents
        files: dict[int, str] = {}
        for index, file in zip(self.metainfo.file_indexes, self.metainfo.manifest.files, strict=True):
            path = folder / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists() or path.read_bytes() != contents[file.path]:
                path.write_bytes(bytes(contents[file.path]))
            files[index] = str(path)
        async with LibtorrentEngine(EngineSettings(host=host)) as engine:
            torrent = await engine.add(AddTorrent(self.metainfo.raw, folder, files, have, wanted=frozenset()))
            if to is not None:
                torrent.connect(*to)
            yield engine.address
