"""Pieces are requested in order while no other peer downloads, and only then."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from p2pmodel.node.fetch import piece_order
from p2pmodel.node.fetch.piece_order import keep_order


@dataclass
class Status:
    peers: int = 0
    seeds: int = 0


@dataclass
class Torrent:
    """A torrent for keep_order that records its calls. Each call of `status` returns the next of `scene`."""

    scene: list[Status]
    asked: list[tuple[int, bool]] = field(default_factory=list)
    looks: int = 0

    def status(self) -> Status:
        self.looks += 1
        if self.looks > len(self.scene):
            raise asyncio.CancelledError
        return self.scene[self.looks - 1]

    def set_sequential(self, on: bool) -> None:
        self.asked.append((self.looks, on))


async def play(*scene: Status, web_seeds: Sequence[bool] = ()) -> list[tuple[int, bool]]:
    """The requested orders, with the number of the status; three statuses without other downloaders count as alone."""
    torrent = Torrent(list(scene))
    with pytest.raises(asyncio.CancelledError):
        await keep_order(torrent, has_web_seeds=lambda: torrent.looks < len(web_seeds) and web_seeds[torrent.looks])  # type: ignore[arg-type]
    return torrent.asked


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piece_order, "ORDER_CHECK_EVERY", 2**-10)
    monkeypatch.setattr(piece_order, "ALONE_FOR", 3 * 2**-10)


ALONE, TOGETHER, NO_PEERS = Status(1, 1), Status(2, 1), Status()


async def test_alone_with_seeds_for_a_while_means_in_order() -> None:
    assert await play(ALONE, ALONE, ALONE, Status(2, 2)) == [(3, True)]


async def test_another_downloader_ends_it_at_once() -> None:
    assert await play(ALONE, ALONE, ALONE, ALONE, TOGETHER, ALONE) == [(3, True), (5, False)]


async def test_alone_again_means_in_order_again() -> None:
    assert await play(TOGETHER, ALONE, ALONE, ALONE) == [(4, True)]


async def test_web_seeds_mean_in_order_at_once_and_for_as_long_as_they_are_used() -> None:
    assert await play(ALONE, TOGETHER, TOGETHER, web_seeds=[True, True]) == [(0, True), (2, False)]


@pytest.mark.parametrize("peers", [NO_PEERS, TOGETHER])
async def test_peers_that_start_together_never_go_in_order(peers: Status) -> None:
    assert await play(ALONE, ALONE, peers, ALONE, ALONE, peers, peers, peers) == []
