"""Open directories: links lead nowhere, and what is not a regular file is neither read nor waited for."""

import os
import socket
from pathlib import Path

import pytest

from p2pmodel import os_errors
from p2pmodel.errors import LocalResource
from p2pmodel.store.files.folder import Folder, is_regular, open_regular, read_regular

STRANGER = 65534


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_text("secret")
    return folder


def plant(link: Path, target: Path) -> None:
    """A link that another user made, where the test may change owners."""
    link.symlink_to(target)
    os.chown(link, STRANGER, STRANGER, follow_symlinks=False)


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "socket"])
def test_only_a_regular_file_is_opened(root: Path, tmp_path: Path, kind: str) -> None:
    path = root / "x"
    with socket.socket(socket.AF_UNIX) as listener:
        match kind:
            case "link":
                path.symlink_to(tmp_path / "elsewhere" / "secret")
            case "fifo":
                os.mkfifo(path)
            case "folder":
                path.mkdir()
            case "socket":
                listener.bind(str(path))
        with Folder.open(root) as folder:
            for flags in (os.O_RDONLY, os.O_RDWR | os.O_CREAT, os.O_WRONLY | os.O_APPEND):
                with pytest.raises(OSError, match=str(path)):
                    folder.open_file("x", flags)
            with pytest.raises(OSError, match="x"):
                folder.read("x")
        with pytest.raises(OSError, match=str(path)):
            open_regular(path)
        assert not is_regular(path)


def test_a_longer_file_than_expected_is_not_read(root: Path) -> None:
    (root / "x").write_bytes(b"12345")
    assert read_regular(root / "x", 5) == b"12345"
    with pytest.raises(OSError, match="large"):
        read_regular(root / "x", 4)


@as_root
def test_a_link_of_another_user_is_not_entered(root: Path, tmp_path: Path) -> None:
    plant(root / "a", tmp_path / "elsewhere")
    with Folder.open(root) as folder:
        for make in (False, True):
            with pytest.raises(OSError, match="another user made"):
                folder.enter("a", make=make)
            with pytest.raises(OSError, match="another user made"):
                folder.enter("a", "b", make=make)
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["secret"]


def test_a_link_of_this_user_is_entered(root: Path, tmp_path: Path) -> None:
    (root / "a").symlink_to("../elsewhere")
    with Folder.open(root) as folder, folder.enter("a") as inner:
        assert inner.read("secret") == b"secret"


def test_a_folder_that_was_moved_stays_the_same(root: Path, tmp_path: Path) -> None:
    with Folder.open(root) as folder, folder.enter("a", make=True) as inner:
        (root / "a").rename(root / "b")
        (root / "a").symlink_to(tmp_path / "elsewhere")
        (inner.anchor / "x").write_text("here")
        (tmp_path / "y").write_text("y")
        inner.take(tmp_path / "y", "y")
        assert sorted(inner.names()) == ["x", "y"]
    assert sorted(path.name for path in (root / "b").iterdir()) == ["x", "y"]


def test_a_removal_follows_no_link(root: Path, tmp_path: Path) -> None:
    (root / "tree" / "inner").mkdir(parents=True)
    (root / "tree" / "inner" / "link").symlink_to(tmp_path / "elsewhere")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    with Folder.open(root) as folder:
        folder.remove_tree("tree")
        folder.remove_tree("link")
        folder.remove_tree("absent")
        assert folder.names() == []
    assert (tmp_path / "elsewhere" / "secret").exists()


def test_a_walk_lists_links_and_does_not_enter_them(root: Path, tmp_path: Path) -> None:
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").touch()
    (root / "a" / "link").symlink_to(tmp_path / "elsewhere")
    with Folder.open(root) as folder:
        found = sorted(("/".join(way), name) for _, way, name in folder.walk())
    assert found == [("a", "link"), ("a/b", "file")]


def test_empty_folders_are_removed_up_to_the_first_that_is_not(root: Path) -> None:
    (root / "a" / "b" / "c").mkdir(parents=True)
    (root / "a" / "file").touch()
    with Folder.open(root) as folder:
        folder.remove_empty("a", "b", "c")
    assert [path.name for path in (root / "a").iterdir()] == ["file"]


def test_a_machine_without_proc_is_told_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os_errors, "DESCRIPTORS", tmp_path / "proc/self/fd")
    os_errors._check_descriptors.cache_clear()
    with Folder.open(tmp_path) as folder, pytest.raises(LocalResource, match="mount /proc"):
        _ = folder.anchor
