"""The proofs of blocks that a source serves, and what they cost it."""

import asyncio
import os
import random
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession

from p2pmodel.core.content import merkle
from p2pmodel.core.content.layout import BLOCK, Layout
from p2pmodel.core.content.leaf_proof import PieceTree, proved
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.pace import Pace
from p2pmodel.http.exposition import SentBytes
from p2pmodel.http.server import serving
from p2pmodel.service.hub import leaf_hashes as module
from p2pmodel.service.hub.app import hub_endpoint
from p2pmodel.service.hub.leaf_hashes import LeafHashes
from p2pmodel.store.cache import HubCache
from tests.support.eventually import PATIENCE, eventually
from tests.support.hub_layout import write_snapshot

PIECE = 8 * BLOCK
WEIGHTS = random.Random(0).randbytes(3 * PIECE - 100)
REPO, PATH = "org/tiny", "model.safetensors"
TOKEN = "t0ken-of-16-letters"


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return write_snapshot(tmp_path, REPO, {PATH: WEIGHTS, "empty.txt": b""})


@asynccontextmanager
async def source(root: Path, hashes: LeafHashes | None, sent: SentBytes | None = None) -> AsyncIterator[str]:
    app = hub_endpoint(HubCache(root), token=TOKEN, leaves=hashes)
    if sent is not None:
        app.middlewares.insert(0, sent.middleware())
    async with serving(app, "127.0.0.1", 0, grace=0.1) as url:
        yield url


async def ask(
    url: str, query: str, *, path: str = PATH, revision: str = "main", token: str = TOKEN
) -> tuple[int, bytes]:
    address = f"{url}/{REPO}/leaves/{revision}/{path}?{query}"
    async with ClientSession() as http, http.get(address, headers={"Authorization": f"Bearer {token}"}) as answer:
        return answer.status, await answer.read()


async def test_the_proof_leads_to_the_root_of_the_piece(tmp_path: Path, manifest: Manifest) -> None:
    sent = SentBytes()
    layout = Layout([(PATH, len(WEIGHTS))], PIECE)
    async with source(tmp_path, LeafHashes(Pace(100_000_000)), sent) as url:
        for piece in range(3):
            place = layout.piece_range(piece)
            data, tree = WEIGHTS[place.offset : place.offset + place.length], PieceTree.of(place, PIECE)
            status, body = await ask(url, f"first={tree.first}&width=8&blocks=1-2,5-5", revision=manifest.commit)
            root = merkle.piece_hash(data, PIECE, only_piece=False)
            found = proved(body, root, tree, ((1, 3), (5, 6)))
            assert status == 200
            assert found == {block: merkle.leaves(data)[block] for block in (1, 2, 5)}
            assert len(body) == 7 * 32
    assert sent.of(REPO, manifest.commit) == 3 * 7 * 32


@pytest.mark.parametrize(
    "query",
    [
        "",
        "first=0&width=7&blocks=0-0",
        "first=4&width=8&blocks=0-0",
        "first=24&width=8&blocks=0-0",
        "first=0&width=16384&blocks=0-0",
        "first=0&width=8&blocks=8-8",
        "first=0&width=8&blocks=3-2",
        "first=0&width=8",
        "first=%C2%B2&width=8&blocks=0-0",
        "first=-8&width=8&blocks=0-0",
    ],
)
@pytest.mark.usefixtures("manifest")
async def test_another_question_is_refused(tmp_path: Path, query: str) -> None:
    async with source(tmp_path, LeafHashes()) as url:
        assert (await ask(url, query))[0] == 400


@pytest.mark.usefixtures("manifest")
async def test_the_access_is_that_of_the_file(tmp_path: Path) -> None:
    query = "first=0&width=8&blocks=0-0"
    async with source(tmp_path, LeafHashes()) as url:
        assert (await ask(url, query, token="another-token-of-16"))[0] == 401
        assert (await ask(url, query, path="other.safetensors"))[0] == 404
        assert (await ask(url, query, path="empty.txt"))[0] == 400
        assert (await ask(url, query, revision="0" * 40))[0] == 404
    async with source(tmp_path, None) as url:
        assert (await ask(url, query))[0] == 404


async def test_a_piece_is_hashed_once_and_a_blob_that_has_gone_is_not_vouched_for(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed, real = list[int](), module._hashed
    monkeypatch.setattr(module, "_hashed", lambda blob, tree, size: hashed.append(tree.first) or real(blob, tree, size))
    async with source(tmp_path, LeafHashes()) as url:
        for blocks in "0-0", "3-4", "0-7":
            assert (await ask(url, f"first=8&width=8&blocks={blocks}"))[0] == 200
        assert hashed == [8]
        [weights] = manifest.select((PATH,))
        blob = HubCache(tmp_path).repo(manifest.repo).blob(weights)
        assert blob is not None
        blob.unlink()
        assert (await ask(url, "first=8&width=8&blocks=0-0"))[0] == 503


@pytest.mark.usefixtures("manifest")
async def test_a_client_waits_for_its_own_turn_and_its_file_stays_open_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    going, real, began = threading.Event(), module._hashed, list[int]()

    def slow(blob: object, tree: PieceTree, size: int) -> bytes:
        began.append(tree.first)
        assert going.wait(PATIENCE)
        assert os.fstat(blob.fileno()).st_size == size  # type: ignore[attr-defined]
        return real(blob, tree, size)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_hashed", slow)
    async with source(tmp_path, LeafHashes()) as url:
        gone = asyncio.create_task(ask(url, "first=0&width=8&blocks=0-0"))
        await eventually(lambda: began == [0], what="the first piece is hashed")
        waiting = asyncio.create_task(ask(url, "first=8&width=8&blocks=0-0"))
        gone.cancel()
        await asyncio.sleep(0.1)
        assert began == [0]
        going.set()
        assert (await waiting)[0] == 200
        assert began == [0, 8]
