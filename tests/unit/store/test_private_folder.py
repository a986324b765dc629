"""The private folder: ours and closed to others, or refused; the same one while it is in use."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from p2pmodel.errors import LocalResource
from p2pmodel.store.private_folder import NAME, PrivateFolder

REPO = "models--org--model"
STRANGER = 65534
OWN_NAME = f"{NAME}-{os.geteuid()}"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")


@pytest.fixture
def private(tmp_path: Path) -> PrivateFolder:
    return PrivateFolder(tmp_path, REPO)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    (tmp_path / REPO).mkdir()
    return tmp_path / REPO


def test_reading_makes_nothing(private: PrivateFolder, tmp_path: Path) -> None:
    assert not private.existing.exists()
    assert list(tmp_path.iterdir()) == []


def test_it_is_closed_to_others_whatever_the_umask(private: PrivateFolder, repo: Path) -> None:
    before = os.umask(0)
    try:
        made = private.made
    finally:
        os.umask(before)
    assert made.resolve() == repo / NAME
    assert private.existing == made
    assert stat.S_IMODE((repo / NAME).stat().st_mode) == 0o700


def test_an_own_folder_that_others_may_read_is_closed(private: PrivateFolder, repo: Path) -> None:
    (repo / NAME).mkdir(mode=0o755)
    assert private.made.resolve() == repo / NAME
    assert stat.S_IMODE((repo / NAME).stat().st_mode) == 0o700


def plant(place: Path, kind: str, elsewhere: Path) -> None:
    match kind:
        case "writable":
            place.mkdir()
            place.chmod(0o775)
        case "file":
            place.write_text("x")
        case "foreign":
            place.mkdir(mode=0o777)
            os.chown(place, STRANGER, STRANGER)
        case "link":
            place.symlink_to(elsewhere)
            os.chown(place, STRANGER, STRANGER, follow_symlinks=False)


@pytest.mark.parametrize(
    "kind", ["writable", "file", pytest.param("foreign", marks=as_root), pytest.param("link", marks=as_root)]
)
def test_what_is_not_safe_is_passed_over_and_then_refused(
    private: PrivateFolder, repo: Path, tmp_path: Path, kind: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    plant(repo / NAME, kind, elsewhere)
    assert not private.existing.exists()
    assert private.made.resolve() == repo / OWN_NAME
    assert private.existing.resolve() == repo / OWN_NAME
    shutil.rmtree(repo / OWN_NAME)
    plant(repo / OWN_NAME, kind, elsewhere)
    with pytest.raises(LocalResource, match=rf"cannot use {repo / NAME}: .*; remove it, or choose another cache"):
        _ = private.made
    assert not private.existing.exists()
    assert list(elsewhere.iterdir()) == []


def test_what_is_in_use_stays_when_another_takes_its_place(private: PrivateFolder, repo: Path, tmp_path: Path) -> None:
    made = private.made
    (made / "file").write_text("ours")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (repo / NAME).rename(repo / "moved.p2pmodel")
    plant(repo / NAME, "file", elsewhere)
    assert (made / "file").read_text() == "ours"
    assert private.made.resolve() == repo / OWN_NAME
    assert (made / "file").read_text() == "ours"
    assert made.resolve() == repo / "moved.p2pmodel"


def test_it_is_made_again_after_a_removal(private: PrivateFolder, repo: Path) -> None:
    (private.made / "file").touch()
    shutil.rmtree(repo)
    assert not (private.existing / "file").exists()
    assert private.made.resolve() == repo / NAME
