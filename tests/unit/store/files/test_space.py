"""Space and write checks: their errors, and which folders they check."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from p2pmodel.errors import LocalResource, NoSpace
from p2pmodel.store.files import space
from p2pmodel.store.files.space import allocated, check_directory, check_space, check_writable


def test_enough_space_is_silent_even_below_folders_that_do_not_exist(tmp_path: Path) -> None:
    check_space(tmp_path, 0)
    check_space(tmp_path / "not" / "there" / "yet", 1000)
    assert not (tmp_path / "not").exists()


def test_too_little_space_names_the_amount_and_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type(shutil.disk_usage(tmp_path))(10**12, 10**12 - 1_500_000_000, 1_500_000_000)
    monkeypatch.setattr(space.shutil, "disk_usage", lambda _path: usage)
    check_space(tmp_path, 1_500_000_000)
    with pytest.raises(NoSpace) as caught:
        check_space(tmp_path / "hub", 2_000_000_000)
    assert str(caught.value) == (
        f"{tmp_path}/hub has 1.5 GB free, 2.0 GB are needed; free some space, or name a folder on another disk"
    )


def test_a_writable_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "hub").write_text("oops")
    for folder in (tmp_path / "hub", tmp_path / "hub" / "models"):
        for check in (check_writable, check_directory):
            with pytest.raises(LocalResource) as caught:
                check(folder)
            assert str(caught.value).startswith(f"{tmp_path}/hub is not a directory; ")


def test_a_folder_that_does_not_exist_yet_may_still_become_one(tmp_path: Path) -> None:
    check_directory(tmp_path)
    check_directory(tmp_path / "not" / "there" / "yet")


def test_a_sparse_file_needs_the_space_of_its_written_ranges(tmp_path: Path) -> None:
    path = tmp_path / "part"
    assert allocated(path) == 0
    with path.open("wb") as file:
        file.truncate(100 << 20)
        file.seek(50 << 20)
        file.write(b"x" * 5000)
    assert 5000 <= allocated(path) < 1 << 20


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.EACCES, LocalResource), (errno.EROFS, LocalResource), (errno.ENOSPC, NoSpace), (errno.EDQUOT, NoSpace)],
)
def test_refusals_of_the_system_become_our_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[LocalResource]
) -> None:
    def refuse(path: Path) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(kind) as caught:
        check_writable(tmp_path)
    assert type(caught.value) is kind
    assert str(tmp_path) in str(caught.value)


def test_too_little_space_below_an_open_folder_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage(tmp_path))(1000, 1000, 0)
    monkeypatch.setattr(space.shutil, "disk_usage", lambda _path: usage)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(NoSpace, match=f"^{tmp_path}/import has 0 bytes free"):
            check_space(Path(f"/proc/self/fd/{descriptor}/import"), 1)
    finally:
        os.close(descriptor)
