"""Checks of pieces that peers complained about: the disk decides, a liar and a wrong torrent change nothing."""

import asyncio
import os
from pathlib import Path

import pytest

from p2pmodel.coordinator.tracker.announce_texts import warning_text
from p2pmodel.core.content.layout import piece_length_for
from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.node.snapshot import piece_checks
from p2pmodel.node.snapshot.piece_checks import MOST_A_MINUTE, PieceChecks
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.state.verified_blobs import BlobState
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_swarm import Swarm
from tests.support.stored import publish

PIECE = piece_length_for(0)
WEIGHTS = os.urandom(3 * PIECE)
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS}


class Rig:
    def __init__(self, root: Path) -> None:
        self.swarm = Swarm(root, snapshot_of(FILES))
        self.repo: RepoCache = self.swarm.cache().repo(self.swarm.metainfo.manifest.repo)
        publish(self.repo.cache, self.swarm.snapshot)
        self.notes: list[str] = []
        self.now = 0.0
        self.checks = PieceChecks(self.repo, self.swarm.metainfo, self.notes.append, clock=lambda: self.now)
        self.file: ManifestFile = self.swarm.snapshot.file("model.safetensors")
        self.first = next(s for s in self.swarm.metainfo.layout.spans if s.path == self.file.path).first_piece

    def flip(self) -> None:
        blob = self.repo.blob_path(self.file)
        status, data = blob.stat(), bytearray(WEIGHTS)
        data[PIECE + 5] ^= 1
        blob.write_bytes(data)
        os.utime(blob, ns=(status.st_atime_ns, status.st_mtime_ns))

    def state(self) -> BlobState:
        return self.repo.states([self.file])[self.file.etag]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


async def test_a_damaged_piece_is_found(rig: Rig) -> None:
    rig.flip()
    await rig.checks.check(rig.first)
    assert rig.state().usable, "this piece is right"
    await rig.checks.check(rig.first + 1)
    assert rig.state() is BlobState.DAMAGED
    assert [note for note in rig.notes if "as other peers reported" in note]


async def test_a_lie_changes_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def rehash(*_: object) -> bool:
        raise AssertionError("a liar made it read a whole file")

    monkeypatch.setattr(piece_checks, "rehash", rehash)
    await rig.checks.check(rig.first + 1)
    assert rig.state() is BlobState.VERIFIED
    assert not rig.notes


async def test_a_wrong_torrent_damages_no_right_file(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(rig.swarm.metainfo), "accepts", lambda *_: False)
    hashed: list[object] = []
    whole = piece_checks.rehash
    monkeypatch.setattr(piece_checks, "rehash", lambda *named: (hashed.append(named), whole(*named))[1])
    for _ in range(3):
        await rig.checks.check(rig.first)
    assert rig.state() is BlobState.VERIFIED
    assert len(hashed) == 1


async def test_the_number_of_checks_is_bounded(rig: Rig) -> None:
    checked: list[int] = []

    async def check(piece: int) -> None:
        checked.append(piece)

    rig.checks.check = check  # type: ignore[method-assign]
    for _ in range(3 * MOST_A_MINUTE):
        rig.checks.warned(warning_text([rig.first]))
    rig.now = 61.0
    rig.checks.warned(warning_text([rig.first + 1, 10**6]))
    rig.checks.warned("another warning")
    running = asyncio.ensure_future(rig.checks.run())
    await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert checked == [rig.first] * MOST_A_MINUTE + [rig.first + 1]
