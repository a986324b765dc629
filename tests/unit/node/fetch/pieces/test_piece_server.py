"""The server of pieces for other zones: what it can send, and to which requests."""

from pathlib import Path

import aiohttp
import pytest

from p2pmodel.core.content.bitfield import bits_of
from p2pmodel.core.pace import Pace
from p2pmodel.errors import Unavailable
from p2pmodel.node.fetch.pieces import piece_server
from p2pmodel.node.fetch.pieces.piece_server import StoredPieces, serving_pieces
from tests.support.node_swarm import Swarm


def pieces_of(root: Path) -> StoredPieces:
    return StoredPieces(Swarm(root).metainfo, Pace())


async def status(port: int, pieces: StoredPieces, *, token: str | None, piece: int = 0, of: str = "") -> int:
    url = f"http://127.0.0.1:{port}/pieces/{of or pieces.info_hash}/{piece}"
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status


async def test_only_the_token_of_a_transfer_opens_its_pieces(tmp_path: Path) -> None:
    pieces, other = pieces_of(tmp_path), pieces_of(tmp_path)
    pieces.keep(0, b"data")
    async with serving_pieces("127.0.0.1", 0, zone="a") as server:
        server.add(pieces)
        assert await status(server.port, pieces, token=pieces.token) == 200
        assert await status(server.port, pieces, token=pieces.token, piece=1) == 503
        assert await status(server.port, pieces, token=other.token) == 401
        assert await status(server.port, pieces, token=None) == 401
        assert await status(server.port, pieces, token=pieces.token, of="0" * 64) == 401


async def test_a_transfer_that_ends_late_does_not_end_the_next_one_of_its_torrent(tmp_path: Path) -> None:
    first, second = pieces_of(tmp_path), pieces_of(tmp_path)
    second.keep(0, b"data")
    async with serving_pieces("127.0.0.1", 0, zone="a") as server:
        server.add(first)
        server.add(second)
        server.remove(first)
        assert await status(server.port, second, token=second.token) == 200
        server.remove(second)
        assert await status(server.port, second, token=second.token) == 401


async def test_the_last_pieces_in_memory_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = pieces_of(tmp_path)
    monkeypatch.setattr(piece_server, "IN_MEMORY", 20)
    for piece in (0, 1, 2):
        pieces.keep(piece, bytes(10))
    assert pieces.held() == bits_of([1, 2])
    with pytest.raises(Unavailable):
        await pieces.read(0)


async def test_a_file_that_is_gone_or_short_leaves_a_piece_out(tmp_path: Path) -> None:
    pieces = pieces_of(tmp_path)
    pieces.read_from(lambda: frozenset({0, 1}), lambda index: tmp_path / str(index))
    (tmp_path / "1").write_bytes(b"x")
    for piece in (0, 1):
        with pytest.raises(Unavailable, match="cannot be read now"):
            await pieces.read(piece)
