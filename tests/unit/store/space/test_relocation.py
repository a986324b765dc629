"""A repository moves to another disk and back: it is always complete, and nothing written meanwhile is lost."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from p2pmodel.errors import Conflict, IntegrityError, InvalidInput, NoSpace, NotFound
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.files import file_system as exchange_module
from p2pmodel.store.process_locks import LockSearch
from p2pmodel.store.snapshots.removal import remove_snapshot
from p2pmodel.store.space import relocation
from p2pmodel.store.space.relocation import Relocation, planned_relocation, relocate
from p2pmodel.store.space.usage import measured, pin, pins
from p2pmodel.store.state.verified_blobs import BlobState
from p2pmodel.store.verify import verify
from tests.support.disks import Disk, disk
from tests.support.hub_snapshot import snapshot_of
from tests.support.stored import CONTENTS, publish

__all__ = ["disk"]

SNAPSHOT = snapshot_of(CONTENTS)
MORE = snapshot_of(CONTENTS | {"model-00001.safetensors": b"other" * 9999})


class Killed(BaseException):
    """The process ends here."""


class Rig:
    """A cache with two snapshots of org/model, and a folder elsewhere."""

    def __init__(self, root: Path, other: Path) -> None:
        self.root, self.other = root, other
        other.mkdir(exist_ok=True)
        for snapshot, ref in ((SNAPSHOT, "v1"), (MORE, "main")):
            publish(self.cache, snapshot, refs=(ref,))
        pin(self.repo, "v1")
        self.before = self.contents()

    @property
    def cache(self) -> HubCache:
        return HubCache(self.root)

    @property
    def repo(self) -> RepoCache:
        return self.cache.repo(SNAPSHOT.manifest.repo)

    @property
    def place(self) -> Path:
        return self.repo.folder

    @property
    def elsewhere(self) -> Path:
        return self.other / self.place.name

    def contents(self) -> dict[str, bytes]:
        return {
            f"{snapshot.commit}/{file.path}": (self.repo.snapshot(snapshot.commit) / file.path).read_bytes()
            for snapshot in (SNAPSHOT, MORE)
            for file in snapshot.manifest.files
        }

    def move(self, parent: Path | None) -> Relocation:
        move = planned_relocation(self.repo, parent)
        relocate(move)
        return move

    def whole(self) -> bool:
        """Whether the cache has all that it had, under the same names, and nothing else."""
        assert self.contents() == self.before
        assert all(verify(self.repo, each.manifest).whole for each in (SNAPSHOT, MORE))
        assert self.repo.refs() == {"v1": SNAPSHOT.commit, "main": MORE.commit}
        assert pins(self.repo) == ("v1",)
        rests = [each for each in (*self.root.iterdir(), *self.other.iterdir()) if "moving" in each.name]
        return not rests


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "hub", tmp_path / "other")


def test_a_moved_repository_is_found_at_the_same_paths_and_is_usable(rig: Rig) -> None:
    move = rig.move(rig.other)
    assert move.target == rig.elsewhere
    assert rig.place.is_symlink()
    assert rig.place.resolve() == rig.elsewhere.resolve()
    assert not rig.repo.lacking(SNAPSHOT.manifest.files)
    assert rig.whole()
    assert not (rig.elsewhere / relocation._WORK).exists()


def test_it_moves_on_and_back(rig: Rig, tmp_path: Path) -> None:
    rig.move(rig.other)
    third = tmp_path / "third"
    third.mkdir()
    rig.move(third)
    assert rig.place.resolve() == (third / rig.place.name).resolve()
    assert not rig.elsewhere.exists()
    assert rig.whole()
    rig.move(None)
    assert not rig.place.is_symlink()
    assert list(third.iterdir()) == []
    assert rig.whole()


def test_another_file_system_gets_a_copy(tmp_path: Path, disk: Callable[[Path, str], Disk]) -> None:
    there = disk(tmp_path / "disk", "20m")
    rig = Rig(tmp_path / "hub", there.path)
    rig.move(there.path)
    assert rig.place.stat().st_dev == there.path.stat().st_dev
    assert set(rig.repo.states(SNAPSHOT.manifest.files).values()) == {BlobState.VERIFIED}
    assert rig.whole()
    rig.move(None)
    assert rig.place.stat().st_dev == tmp_path.stat().st_dev
    assert rig.whole()
    full = disk(tmp_path / "full", "200k")
    with pytest.raises(NoSpace, match="are needed"):
        planned_relocation(rig.repo, full.path)


def test_what_lies_elsewhere_is_not_counted_and_rm_removes_it(rig: Rig) -> None:
    before = measured(rig.cache).total
    rig.move(rig.other)
    usage = measured(rig.cache)
    assert usage.total < before / 2
    assert {each.moved_to for each in usage.snapshots} == {str(rig.elsewhere.resolve())}
    for snapshot in (SNAPSHOT, MORE):
        remove_snapshot(rig.repo, snapshot.commit)
    assert not os.path.lexists(rig.place)
    assert list(rig.other.iterdir()) == []


def test_a_repository_that_is_there_already_stays(rig: Rig) -> None:
    rig.move(rig.other)
    rig.move(rig.other)
    assert rig.whole()
    rig.move(None)
    rig.move(None)
    assert rig.whole()


def test_folders_that_cannot_be_used_are_refused(rig: Rig) -> None:
    with pytest.raises(InvalidInput, match="is not a folder"):
        planned_relocation(rig.repo, rig.other / "missing")
    with pytest.raises(InvalidInput, match="is in the cache"):
        planned_relocation(rig.repo, rig.root)
    with pytest.raises(NotFound):
        planned_relocation(rig.cache.repo(snapshot_of(CONTENTS, repo="org/absent").manifest.repo), rig.other)
    rig.elsewhere.mkdir()
    with pytest.raises(Conflict, match="exists"):
        planned_relocation(rig.repo, rig.other)


def test_a_download_that_runs_prevents_the_move(rig: Rig) -> None:
    downloading = rig.repo
    lock = LockSearch(downloading.staging(MORE.commit).lock_path()).take()
    assert lock is not None
    with pytest.raises(Conflict, match="works on org/model"):
        rig.move(rig.other)
    lock.release()
    [file, *_] = MORE.manifest.files
    other = HubCache(rig.root)
    assert other.locks.try_acquire(rig.repo.repo, file)
    with pytest.raises(Conflict, match="another client downloads"):
        rig.move(rig.other)
    other.locks.release(rig.repo.repo, file)
    rig.move(rig.other)
    assert rig.whole()


def test_a_damaged_blob_prevents_the_move(rig: Rig) -> None:
    file = next(each for each in MORE.manifest.files if each.size)
    blob = rig.repo.blob_path(file)
    blob.write_bytes(bytes(file.size))
    with pytest.raises(IntegrityError, match=f"{file.path} of org/model is damaged: nothing was moved"):
        rig.move(rig.other)
    assert not rig.place.is_symlink()
    assert list(rig.other.iterdir()) == []


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_another_program_writes_meanwhile_is_not_lost(
    rig: Rig, when: str, back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if back:
        rig.move(rig.other)
    written = rig.place.resolve() / "blobs" / ("f" * 64)
    folder = os.open(written.parent, os.O_RDONLY)  # it keeps the folder open, as a client may

    def write() -> None:
        os.close(os.open(written.name, os.O_CREAT | os.O_WRONLY, dir_fd=folder))

    if when == "before":
        check = relocation._check
        monkeypatch.setattr(relocation, "_check", lambda *given: (check(*given), write()))
    else:
        swap = relocation.exchange
        calls: list[object] = []

        def swapped(one: Path, other: Path) -> None:
            swap(one, other)
            if not calls:
                write()
            calls.append(one)

        monkeypatch.setattr(relocation, "exchange", swapped)
    with pytest.raises(Conflict, match="nothing was moved"):
        rig.move(None if back else rig.other)
    os.close(folder)
    assert (rig.place / "blobs" / written.name).exists()
    assert rig.place.is_symlink() == back
    assert rig.whole()


def stops(target: str, count: int) -> Callable[[pytest.MonkeyPatch], None]:
    """Kill at the call `count` of a step."""

    def arm(monkeypatch: pytest.MonkeyPatch) -> None:
        module, name = (os, target.removeprefix("os.")) if target.startswith("os.") else (relocation, target)
        real, calls = getattr(module, name), [0]

        def step(*given: object, **named: object) -> object:
            calls[0] += 1
            if calls[0] == count:
                raise Killed
            return real(*given, **named)

        monkeypatch.setattr(module, name, step)

    return arm


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize(
    "kill",
    [
        stops("_copy_file", 3),
        stops("_check", 1),
        stops("exchange", 1),
        stops("_exchanged", 1),
        stops("_remove", 2),
        stops("sync", 9),
    ],
)
def test_after_a_kill_the_repository_is_complete_and_the_next_move_finishes(
    rig: Rig, back: bool, kill: Callable[[pytest.MonkeyPatch], None]
) -> None:
    if back:
        rig.move(rig.other)
    with pytest.MonkeyPatch.context() as patch:
        kill(patch)
        patch.setattr(relocation.shutil, "rmtree", lambda *_args, **_named: None)  # a killed process tidies nothing
        with suppress(Killed):
            rig.move(None if back else rig.other)
    assert rig.contents() == rig.before
    rig.move(None if back else rig.other)
    assert rig.place.is_symlink() == (not back)
    assert rig.whole()
    if back:
        assert list(rig.other.iterdir()) == []


def test_without_renameat2_a_kill_between_the_steps_is_mended(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "_renameat2", lambda: None)
    rig.move(rig.other)
    rig.move(None)
    assert rig.whole()
    rig.place.rename(exchange_module.aside_of(rig.place))
    rig.move(rig.other)
    assert rig.whole()
