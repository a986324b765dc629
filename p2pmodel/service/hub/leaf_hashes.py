"""Hashes of the 16 KiB blocks of published files, for nodes that need a part of a piece (`core/content/leaf_proof`).

They are made from the file when they are asked for, in threads, and the last ones are kept. Two pieces are hashed at a
time, one for a client; further questions wait.
"""

import asyncio
import os
from http import HTTPStatus
from typing import BinaryIO
from weakref import WeakValueDictionary

from aiohttp import web
from cachetools import LRUCache

from p2pmodel.core.content.layout import BLOCK, MIB
from p2pmodel.core.content.leaf_proof import PieceTree, Runs, parse_runs, proof
from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.core.content.merkle import HASH, leaves
from p2pmodel.core.pace import Pace
from p2pmodel.core.tasks import in_thread
from p2pmodel.errors import InvalidInput, LocalResource
from p2pmodel.http.access_log import SENT
from p2pmodel.os_errors import translated
from p2pmodel.service.hub.published_snapshots import PublishedSnapshot

KEPT = 32 * MIB
"""Bytes of hashes that are kept: those of 16 GiB of files."""
AT_ONCE = 2
OF_A_CLIENT = 1
_READ = MIB

_Key = tuple[str, int, int]
"""A content, and the first block and the width of a tree over it."""


class LeafHashes:
    """The hashes that one endpoint serves."""

    def __init__(self, pace: Pace | None = None) -> None:
        self._pace = pace or Pace()
        self._kept: LRUCache[_Key, bytes] = LRUCache(KEPT, getsizeof=len)
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        """By client, its turns, as long as it waits for one."""

    async def answer(self, request: web.Request, snapshot: PublishedSnapshot, file: ManifestFile) -> web.Response:
        """The proof that `request` asks for. Raises InvalidInput for a question that no piece of `file` answers, and as
        `PublishedSnapshot.open`."""
        tree, runs = _question(request, file)
        client = request.remote or ""
        own = self._of.get(client)
        if own is None:
            own = self._of[client] = asyncio.Semaphore(OF_A_CLIENT)
        async with own, self._turns:
            body = await self._proof(snapshot, file, tree, runs)
        for start in range(0, len(body), self._pace.block):
            await self._pace.reserve(min(self._pace.block, len(body) - start))
        request[SENT] = len(body)
        headers = {"X-Repo-Commit": snapshot.manifest.commit, "X-Linked-Etag": f'"{file.etag}"'}
        return web.Response(status=HTTPStatus.OK, body=body, headers=headers, content_type="application/octet-stream")

    async def _proof(self, snapshot: PublishedSnapshot, file: ManifestFile, tree: PieceTree, runs: Runs) -> bytes:
        # Also for hashes that are kept: a blob that is damaged, changed or gone since is not vouched for.
        with await in_thread(lambda: snapshot.open(file), _close) as blob:
            key = file.etag, tree.first, tree.width
            found = self._kept.get(key)
            if found is None:
                reading = asyncio.ensure_future(asyncio.to_thread(_hashed, blob, tree, file.size))
                try:
                    found = await asyncio.shield(reading)
                finally:
                    if not reading.done():  # the file must stay open until then
                        await asyncio.wait([reading])
                self._kept[key] = found
        hashes = [found[start : start + HASH] for start in range(0, len(found), HASH)]
        return await asyncio.to_thread(proof, hashes, tree, runs)


def _close(blob: BinaryIO) -> None:
    blob.close()


def _question(request: web.Request, file: ManifestFile) -> tuple[PieceTree, Runs]:
    try:
        first, width = (_number(request.query.get(name, "")) for name in ("first", "width"))
        tree = PieceTree.at(first, width, file.size)
        return tree, parse_runs(request.query.get("blocks", ""), tree.count)
    except ValueError as error:
        raise InvalidInput(f"no such hashes: {error}", hint="see docs/protocol.md, Source") from None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise ValueError("first and width must be numbers")
    return int(text)


@translated()
def _hashed(blob: BinaryIO, tree: PieceTree, size: int) -> bytes:
    start = tree.first * BLOCK
    end = min(size, start + tree.count * BLOCK)
    found: list[bytes] = []
    for offset in range(start, end, _READ):
        data = os.pread(blob.fileno(), min(_READ, end - offset), offset)
        if len(data) < min(_READ, end - offset):
            raise LocalResource("a file became shorter while it was read", hint="no other program may change it")
        found += leaves(data)
    return b"".join(found)
