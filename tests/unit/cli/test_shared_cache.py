"""Commands of a user that can read a shared cache, but not write to it, and not read all of it."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from p2pmodel.store.cache import HubCache
from tests.support.command_line import CommandLine
from tests.support.disks import read_only
from tests.support.hub_snapshot import snapshot_of
from tests.support.stored import CONTENTS, publish

__all__ = ["read_only"]

STRANGER = 65534
REPO = "org/model"
OTHER = "org/other"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


@pytest.fixture
def home() -> Iterator[Path]:
    """A home folder of the stranger that it can reach; the test's own directory is closed to it."""
    path = Path(tempfile.mkdtemp(dir="/tmp"))
    os.chown(path, STRANGER, STRANGER)
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def cli(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    found = CommandLine(home, monkeypatch, capsys)
    cache = HubCache(found.hub)
    publish(cache)
    publish(cache, snapshot_of(CONTENTS, repo=OTHER))
    # These import what the commands need, which the stranger may not be able to read.
    found.ok("verify", REPO)
    found.ok("fetch", REPO, "-q", "--no-daemon", HF_HUB_OFFLINE="1")
    found.ok("torrent", "create", REPO, "-o", home / "warm.torrent")
    shutil.rmtree(home / ".local", ignore_errors=True)
    return found


@contextmanager
def stranger() -> Iterator[None]:
    os.setegid(STRANGER)
    os.seteuid(STRANGER)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def test_a_stranger_lists_verifies_and_makes_torrents_of_what_it_can_read(cli: CommandLine) -> None:
    with stranger():
        with pytest.raises(PermissionError):
            (cli.hub / "probe").touch()
        assert "complete" in cli.ok("ls")
        path = cli.ok("verify", REPO)
        cli.ok("torrent", "create", REPO, "-o", cli.home / "m.torrent")
        state = cli.home / ".local" / "state" / "p2pmodel" / "caches"
        assert [each.name for each in state.glob("*/*")] == ["models--org--model"]
        assert json.loads(cli.ok("fetch", REPO, "--json", "--no-daemon", HF_HUB_OFFLINE="1"))["path"] == path


def test_a_cache_on_a_read_only_mount_is_used_as_any_other(cli: CommandLine, read_only: Callable[[Path], None]) -> None:
    repo = HubCache(cli.hub).repo(snapshot_of(CONTENTS).manifest.repo)
    (repo.private / "verified.jsonl").unlink()
    read_only(cli.hub)
    with pytest.raises(OSError, match="Read-only"):
        (cli.hub / "probe").touch()
    fetched = json.loads(cli.ok("fetch", REPO, "--json", "--no-daemon", HF_HUB_OFFLINE="1"))
    assert fetched["from_cache"] == sum(map(len, CONTENTS.values()))
    assert cli.ok("verify", REPO) == fetched["path"]
    assert "complete" in cli.ok("ls")
    cli.ok("torrent", "create", REPO, "-o", cli.home / "m.torrent")
    cli.ok("fetch", cli.home / "m.torrent", "-q", "--no-daemon", HF_HUB_OFFLINE="1", P2PMODEL_SWARM_TRUST="coordinator")
    assert "cannot write to" in cli.refuses(7, "import", cli.home, REPO, "-q")


def test_a_cache_that_a_stranger_cannot_read_is_not_served(cli: CommandLine) -> None:
    cli.refuses(2, "mirror", "serve", "--listen", "nowhere")  # imports what it needs
    cli.hub.chmod(0o700)
    with stranger():
        assert str(cli.hub) in cli.refuses(7, "mirror", "serve", "--listen", "127.0.0.1:0")


def test_without_any_place_for_state_a_cache_is_verified_all_the_same(cli: CommandLine) -> None:
    (cli.home / ".local").write_text("not a folder")
    with stranger():
        cli.ok("verify", REPO)


def test_damage_that_a_stranger_finds_is_on_its_own_record(cli: CommandLine) -> None:
    repo = HubCache(cli.hub).repo(snapshot_of(CONTENTS).manifest.repo)
    weights = next(file for file in snapshot_of(CONTENTS).manifest.files if file.path.endswith(".safetensors"))
    blob = repo.blob_path(weights)
    data = bytearray(blob.read_bytes())
    data[7] ^= 1
    with stranger():
        cli.ok("verify", REPO)
    status = blob.stat()
    blob.write_bytes(data)
    os.utime(blob, ns=(status.st_atime_ns, status.st_mtime_ns))
    with stranger():
        line = cli("verify", REPO).err
        assert f"corrupt: {weights.path}" in line
        assert "1 file doubted" in cli.ok("ls")


def test_a_repository_that_cannot_be_read_is_named_and_the_others_are_listed(cli: CommandLine) -> None:
    (cli.hub / "models--org--other").chmod(0o700)
    with stranger():
        done = cli("ls")
        assert (done.code, REPO in done.out, OTHER in done.out) == (0, True, False)
        assert done.err.startswith(f"not listed: {OTHER}: ")
        assert "Permission denied" in done.err
        plain = json.loads(cli("ls", "--json").out)
        assert list(plain["unreadable"]) == [OTHER]
        assert [each["repo"] for each in plain["snapshots"]] == [REPO]


def test_files_that_cannot_be_read_are_named_and_the_others_verified(cli: CommandLine) -> None:
    manifest = snapshot_of(CONTENTS).manifest
    closed = next(file for file in manifest.files if file.path == "config.json")
    HubCache(cli.hub).repo(manifest.repo).blob_path(closed).chmod(0o600)
    with stranger():
        done = cli("verify", REPO)
        assert done.code == 7
        assert "unreadable: config.json\n" in done.err
        assert f"1 of {len(manifest.files)} files of {REPO}@{manifest.commit} cannot be read" in done.err
        line = cli.refuses(7, "torrent", "create", REPO, "-q", "-o", cli.home / "m.torrent")
        assert closed.etag in line


def test_an_import_is_refused_with_the_folder(cli: CommandLine) -> None:
    source = cli.home / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    with stranger():
        assert f"cannot write to {cli.hub}" in cli.refuses(7, "import", source, "org/new", "-q")
