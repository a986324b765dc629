"""Snapshots of every shape: links, empty files, deep folders, odd names, no files; and their view in hub clients."""

import os
import random
import unicodedata
from pathlib import Path

import huggingface_hub
import pytest

from tests.support.command_line import CommandLine
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of
from tests.support.in_thread import in_thread
from tests.support.processes import Nodes

REPO = "org/model"
UNREACHABLE = "http://127.0.0.1:9"
NAMES = (
    "plain.txt",
    "with space.txt",
    " leading and trailing ",
    "per%20cent.txt",
    "ha#sh and quest?ion.txt",
    "plus+and&amp;.txt",
    'quote\'s "double".txt',
    unicodedata.normalize("NFC", "größe.txt"),
    unicodedata.normalize("NFD", "größe-decomposed.txt"),
    "名前/モデル.bin",
    "emoji 🤗.txt",
    ".hidden",
    "deep/" * 20 + "file.txt",
    "x" * 200 + ".txt",
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with all of it."""
    folder = tmp_path / "source"
    for number, name in enumerate(NAMES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(number).randbytes(1000 + number * 40_000))
    (folder / "empty.txt").touch()
    (folder / "empty/also.bin").parent.mkdir()
    (folder / "empty/also.bin").touch()
    (folder / "real.safetensors").write_bytes(random.Random("real").randbytes(300_000))
    (folder / "linked.safetensors").symlink_to("real.safetensors")
    (folder / "deep/linked up.safetensors").symlink_to("../linked.safetensors")
    (folder / ".git").mkdir()
    (folder / ".git/HEAD").write_text("ref: refs/heads/main")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Path -> content, links followed."""
    files = (p for p in folder.rglob("*") if p.is_file() and ".git" not in p.parts)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def test_it_travels_from_cache_to_cache_and_hub_clients_read_it(nodes: Nodes, source: Path):
    expected = contents(source)
    assert len(expected) == len(NAMES) + 5
    nodes.ok("origin", "import", source, REPO)
    endpoint, _ = nodes.mirror(node="origin")
    ready = nodes.seed(REPO, "--endpoint", endpoint).ready()
    by_swarm = nodes.fetch("peer", REPO, "--endpoint", UNREACHABLE, "--coordinator", ready["coordinator"]).wait()
    assert by_swarm.code == 0, by_swarm.err
    assert by_swarm.json["from_peers"] == ready["size"]
    for node in ("seeder", "peer"):
        nodes.ok(node, "verify", REPO)
        path = huggingface_hub.snapshot_download(REPO, cache_dir=nodes.cache(node), local_files_only=True)
        assert contents(Path(path)) == expected
        for name in expected:
            found = huggingface_hub.try_to_load_from_cache(REPO, name, cache_dir=nodes.cache(node))
            assert isinstance(found, str)
            assert Path(found).read_bytes() == expected[name]
    scanned = huggingface_hub.scan_cache_dir(nodes.cache("peer"))
    assert not scanned.warnings
    assert [repo.repo_id for repo in scanned.repos] == [REPO]


def test_a_snapshot_folder_can_be_imported_again(cli: CommandLine, source: Path):
    first = Path(cli.ok("import", source, REPO))
    second = Path(cli.ok("import", first, "org/copy", "--cache-dir", cli.home / "other"))
    assert second.name == first.name
    assert contents(second) == contents(source)
    assert cli.ok("import", source, REPO) == str(first)


def make_nothing(_folder: Path) -> None:
    pass


def make_dangling_link(folder: Path) -> None:
    (folder / "link").symlink_to("none")


def make_loop(folder: Path) -> None:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")


def make_way_out(folder: Path) -> None:
    (folder / "link").symlink_to("/etc/hostname")


def make_link_to_folder(folder: Path) -> None:
    (folder / "real").mkdir()
    (folder / "link").symlink_to("real")


def make_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def make_line_break(folder: Path) -> None:
    (folder / "two\nlines").touch()


def make_backslash(folder: Path) -> None:
    (folder / "back\\slash").touch()


@pytest.mark.parametrize(
    ("make", "code", "words"),
    [
        (make_nothing, 2, "no file in"),
        (make_dangling_link, 2, "broken link link -> none; remove it or repair it"),
        (make_loop, 2, "broken link"),
        (make_way_out, 2, "the link link -> /etc/hostname leaves the directory; put the file itself there"),
        (make_link_to_folder, 2, "link is a link to a directory; put the files themselves there"),
        (make_pipe, 2, "pipe is not a regular file; remove it from the directory"),
        (make_line_break, 5, "is not safe"),
        (make_backslash, 5, "the path 'back\\slash' is not safe inside a snapshot"),
    ],
)
@pytest.mark.parametrize("verb", ["import", "seed"])
def test_directories_that_make_no_snapshot(cli: CommandLine, make, code: int, words: str, verb: str):  # type: ignore[no-untyped-def]
    folder = cli.home / "folder"
    folder.mkdir()
    make(folder)
    args = ("import", folder, REPO) if verb == "import" else ("seed", folder, "--as", REPO, "--once")
    assert words in cli.refuses(code, *args, "-q")
    assert not list(cli.hub.rglob("snapshots"))


def test_a_repository_without_files(cli: CommandLine):
    with in_thread(FakeHub(snapshot_of({}))) as hub:
        at = ("--endpoint", hub.url)
        path = cli.ok("fetch", REPO, *at, "-q")
        assert contents(Path(path)) == {}
        assert cli.ok("verify", REPO, "-q") == path
        assert "has no content to seed" in cli.refuses(2, "seed", REPO, *at, "--once", "-q")
        assert "matches --include" in cli.refuses(3, "fetch", REPO, *at, "-q", "--include", "*.bin")
    assert "cannot be a torrent" in cli.refuses(2, "torrent", "create", REPO)


def test_a_repository_of_empty_files(cli: CommandLine):
    empty = {"a.txt": b"", "b/c.safetensors": b""}
    with in_thread(FakeHub(snapshot_of(empty))) as hub:
        at = ("--endpoint", hub.url)
        path = cli.ok("fetch", REPO, *at, "-q")
        assert contents(Path(path)) == empty
        assert cli.ok("verify", REPO, "-q") == path
        assert "has no content to seed" in cli.refuses(2, "seed", REPO, *at, "--once", "-q")
    assert contents(Path(cli.ok("import", path, "org/copy"))) == empty
