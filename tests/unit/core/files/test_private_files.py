"""Private files: closed to other users from the moment they are made, whatever the umask is."""

import errno
import io
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from p2pmodel.core.files import private_files
from p2pmodel.core.files.private_files import (
    LEFTOVER_AFTER,
    append_private,
    make_folders,
    private_folder,
    remove_leftovers,
    write_output,
    write_private,
)
from p2pmodel.errors import LocalResource


@pytest.fixture(autouse=True)
def _no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_folder_that_is_made_is_private(tmp_path: Path) -> None:
    private_folder(tmp_path / "a/b/c")
    make_folders(tmp_path / "a/b/c/d")
    assert [mode(tmp_path / name) for name in ("a", "a/b", "a/b/c", "a/b/c/d")] == [0o700] * 4


def test_an_open_folder_is_closed_while_it_is_empty(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    private_folder(folder)
    assert mode(folder) == 0o700
    (folder / "file").touch()
    folder.chmod(0o750)
    with pytest.raises(LocalResource, match=f"other users have access to the folder {folder}; chmod 700 {folder}"):
        private_folder(folder)
    assert mode(folder) == 0o750


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    private_folder(folder)
    shutil.chown(folder, "nobody")
    with pytest.raises(LocalResource, match=r"belongs to another user \(uid \d+\)"):
        private_folder(folder)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(LocalResource, match="not a directory"):
        private_folder(tmp_path / "state")


def test_files_are_private_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "record"
    path.write_text("open")
    write_private(path, b"closed")
    assert (path.read_bytes(), mode(path)) == (b"closed", 0o600)
    assert [each.name for each in tmp_path.iterdir()] == ["record"]


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "record").mkdir()
    with pytest.raises(OSError, match="record"):
        write_private(tmp_path / "record", b"x")
    assert [each.name for each in tmp_path.iterdir()] == ["record"]


def test_an_existing_log_keeps_its_mode(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("1\n")
    old.chmod(0o640)
    for path in (old, new):
        with append_private(path) as log:
            log.write("2\n")
    assert (old.read_text(), mode(old)) == ("1\n2\n", 0o640)
    assert (new.read_text(), mode(new)) == ("2\n", 0o600)


def test_a_log_that_is_an_unread_fifo_fails_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    with pytest.raises(OSError, match="log"):
        append_private(tmp_path / "log")


def test_a_named_output_is_closed_before_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "out.torrent"
    path.write_text("longer than the new content")
    write_output(path, b"new")
    assert (path.read_bytes(), mode(path)) == (b"new", 0o600)
    write_output(Path(os.devnull), b"new")
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


@pytest.mark.parametrize(("age", "stays"), [(10, True), (LEFTOVER_AFTER + 10, False), (-LEFTOVER_AFTER - 10, False)])
def test_old_temporary_files_are_removed(tmp_path: Path, age: float, stays: bool) -> None:
    left, other = tmp_path / ".new-x1", tmp_path / "record"
    left.touch()
    other.touch()
    now = left.stat().st_ctime + age
    remove_leftovers(tmp_path, clock=lambda: now)
    assert (left.exists(), other.exists()) == (stays, True)
    remove_leftovers(tmp_path / "absent")


def test_state_is_made_by_this_module_alone() -> None:
    """Below the cache the store has its own rules; the engine in memory writes into the cache, too."""
    package = Path(private_files.__file__).parents[2]
    plain = re.compile(r"\.mkdir\(|makedirs|write_bytes\(|write_text\(|\.touch\(\)|open\(\"[wax]|mkstemp|NamedTemp")
    in_cache = {"node/fetch/publisher.py", "node/snapshot/inventory.py"}
    in_own_temporary_folder = {"loading/arrival/arriving_model.py"}
    weights_for_an_engine = {"node/ranks/rank_file.py"}  # as open as the files of a cache
    allowed = in_cache | in_own_temporary_folder | weights_for_an_engine
    allowed |= {"swarm/libtorrent/tracker_trust.py", "core/files/private_files.py", "cli/mirrors/bench.py"}
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if not path.is_relative_to(package / "store") and not path.is_relative_to(package / "swarm/memory")
        if plain.search(path.read_text())
    }
    assert found <= allowed


@pytest.mark.parametrize("write", [write_private, write_output])
def test_an_error_without_a_name_of_the_system_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, bytes], None]
) -> None:
    class Full(io.BufferedWriter):
        def write(self, _data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdopen", lambda descriptor, _mode: Full(io.FileIO(descriptor, "wb")))
    with pytest.raises(OSError, match="No space left") as caught:
        write(tmp_path / "file", b"data")
    assert caught.value.filename == str(tmp_path / "file")
