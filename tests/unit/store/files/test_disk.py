"""Atomic writes: old or new, no leftovers, errors translated."""

import os
from pathlib import Path

import pytest

from p2pmodel.errors import LocalResource
from p2pmodel.os_errors import translated
from p2pmodel.store.files import disk
from p2pmodel.store.files.disk import boot_id, link_atomic, read_json, sync, write_atomic
from p2pmodel.store.files.folder import Folder


def test_a_write_replaces_whole_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    target, via = tmp_path / "a" / "b", tmp_path / "tmp"
    for data in (b"first", b"", b"second" * 1000):
        write_atomic(target, data, via=via)
        assert target.read_bytes() == data
    assert list(via.iterdir()) == []


def test_a_write_that_fails_leaves_the_old_and_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, via = tmp_path / "b", tmp_path / "tmp"
    write_atomic(target, b"old", via=via)

    def crash(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk.os, "fsync", crash)
    with pytest.raises(OSError, match="No space"):
        write_atomic(target, b"new", via=via)
    assert target.read_bytes() == b"old"
    assert list(via.iterdir()) == []
    write_atomic(target, b"new", via=via, durable=False)
    assert target.read_bytes() == b"new"


def test_a_link_replaces_a_file_or_a_link_but_not_a_folder(tmp_path: Path) -> None:
    place, via, folder = tmp_path / "link", tmp_path / "tmp", Folder.open(tmp_path)
    link_atomic(folder, "link", "one", via=via)
    link_atomic(folder, "link", "two", via=via)
    assert str(place.readlink()) == "two"
    place.unlink()
    place.write_text("a file")
    link_atomic(folder, "link", "three", via=via)
    assert str(place.readlink()) == "three"
    place.unlink()
    place.mkdir()
    with pytest.raises(IsADirectoryError):
        link_atomic(folder, "link", "four", via=via)
    assert list(via.iterdir()) == []


def test_unreadable_json_is_none(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    assert read_json(path) is None
    assert read_json(tmp_path) is None
    for damage in (b"", b"{", b"\xff", b"[" * 100_000):
        path.write_bytes(damage)
        assert read_json(path) is None
    path.write_text('{"a": [1]}')
    assert read_json(path) == {"a": [1]}


def test_files_and_folders_can_be_synced(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    sync(tmp_path / "f")
    sync(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "gone")


def test_the_edge_lets_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), translated():
        _ = 1 // 0
    with pytest.raises(LocalResource, match="not writable or readable at /x: Permission denied"), translated():
        raise PermissionError(13, "Permission denied", "/x")


def test_the_boot_id_is_stable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert boot_id() == boot_id()

    def gone(*_args: object, **_kwargs: object) -> str:
        raise FileNotFoundError(2, "No such file", os.fspath("/proc"))

    monkeypatch.setattr(Path, "read_text", gone)
    assert boot_id() == ""
