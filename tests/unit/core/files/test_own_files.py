"""Own files: only regular files that this user or root wrote are read, judged by the opened descriptor."""

import os
import shutil
from pathlib import Path

import pytest

from p2pmodel.core.files.own_files import others_can_read, read_own, read_secret
from p2pmodel.errors import InvalidInput

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text(" secret\n")
    return path


def test_an_own_file_is_read(file: Path) -> None:
    assert read_secret(file) == (" secret\n", f"the token file {file}")
    file.chmod(0o644)
    assert read_own(file, "settings file") == " secret\n"


def test_a_byte_order_mark_is_no_part_of_the_text(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbfoffline = true\n")
    assert read_own(file, "settings file") == "offline = true\n"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_secret_that_others_can_read_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(InvalidInput, match=f"others can read the token file {file}; chmod 600 {file}"):
        read_secret(file)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_change_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(InvalidInput, match=f"others can change the settings file {file}; chmod go-w"):
        read_own(file, "settings file")


@ROOT_ONLY
def test_a_file_of_another_user_is_refused(file: Path) -> None:
    shutil.chown(file, "nobody")
    with pytest.raises(InvalidInput, match=r"belongs to another user \(uid \d+\)"):
        read_own(file, "settings file")


@ROOT_ONLY
def test_a_link_does_not_hide_the_owner(file: Path, tmp_path: Path) -> None:
    shutil.chown(file, "nobody")
    link = tmp_path / "link"
    link.symlink_to(file)
    with pytest.raises(InvalidInput, match="belongs to another user"):
        read_own(link, "settings file")


@pytest.mark.parametrize(("mode", "refused"), [(0o777, True), (0o1777, False), (0o775, False)])
def test_a_folder_in_which_others_can_replace_the_file_is_refused(tmp_path: Path, mode: int, refused: bool) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    path = folder / "p2pmodel.toml"
    path.write_text("x")
    folder.chmod(mode)
    if not refused:
        assert read_own(path, "settings file") == "x"
        return
    for each in (path, tmp_path / "link"):
        if each != path:
            each.symlink_to(path)
        with pytest.raises(InvalidInput, match=f"others can replace the settings file .*; chmod o-w {folder}"):
            read_own(each, "settings file")


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, reason in (
        (tmp_path / "fifo", "it is not a regular file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "none", "No such file"),
        (Path(os.devnull), "it is not a regular file"),
    ):
        with pytest.raises(InvalidInput, match=f"cannot be read: {reason}"):
            read_own(path, "settings file")


def test_only_short_text_is_read(file: Path) -> None:
    file.write_bytes(b"\xff")
    with pytest.raises(InvalidInput, match="not UTF-8"):
        read_secret(file)
    file.write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(InvalidInput, match="longer than 1 MiB"):
        read_secret(file)


@pytest.mark.parametrize(
    ("reader", "owner", "mode", "others"),
    [
        ((1000, 1000), (0, 0), 0o640, False),
        ((1000, 1000), (0, 0), 0o644, True),
        ((1000, 1000), (1000, 1000), 0o640, True),
        ((0, 0), (0, 0), 0o640, True),
        ((0, 0), (0, 1000), 0o640, False),
        ((0, 0), (0, 1000), 0o604, True),
        ((0, 0), (0, 0), 0o600, False),
    ],
)
def test_the_group_that_root_chose_may_read(
    monkeypatch: pytest.MonkeyPatch, reader: tuple[int, int], owner: tuple[int, int], mode: int, others: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: reader[0])
    monkeypatch.setattr(os, "getegid", lambda: reader[1])
    assert others_can_read(os.stat_result((mode, 0, 0, 1, *owner, 0, 0, 0, 0))) == others
