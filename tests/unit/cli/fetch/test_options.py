"""`p2pmodel fetch` for users of `hf download`: the same options, single files, and copies in a folder."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from huggingface_hub._local_folder import read_download_metadata
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.cli.fetch.fetch import fetch
from p2pmodel.cli.fetch.options import LEFT_OUT, _spread
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import EntryNotFound, InvalidInput, P2PModelError, Unavailable
from p2pmodel.store.cache import HubCache, RepoCache
from tests.support.stored import CONTENTS, publish

WEIGHTS = "model-00001.safetensors"
FILES = sorted(CONTENTS)


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RepoCache:
    for name, value in {"HF_HUB_CACHE": tmp_path / "hub", "HF_HUB_OFFLINE": 1, "HOME": tmp_path}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(tmp_path)
    cache = HubCache(tmp_path / "hub")
    publish(cache)
    return cache.repo(Reference.parse("org/model").repo)


@pytest.fixture
def snapshot(repo: RepoCache) -> Path:
    return repo.snapshot(repo.commits()[0])


def invoke(*arguments: str | Path) -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(fetch, words, standalone_mode=False, catch_exceptions=False)


def refused(error: type[P2PModelError], *arguments: str | Path) -> str:
    with pytest.raises(error) as caught:
        invoke(*arguments)
    return str(caught.value)


def test_every_option_of_hf_download_is_known() -> None:
    command = [sys.executable, "-m", "huggingface_hub.cli.hf", "download", "--help"]
    env = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1", "TERM": "dumb"}
    help_text = subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout
    theirs = set(re.findall(r"--[a-z][a-z-]+", help_text.split("Examples")[0]))
    assert "--local-dir" in theirs
    ours = {name for each in fetch.params if isinstance(each, click.Option) for name in each.opts}
    assert theirs - ours - {"--help"} == set()
    hidden = {o for each in fetch.params if isinstance(each, click.Option) and each.hidden for o in each.opts}
    assert theirs & hidden - set(LEFT_OUT) == {
        "--format",  # --json and --quiet
        "--no-force-download",
        "--no-dry-run",
    }


def test_options_without_an_effect_are_named(snapshot: Path) -> None:
    done = invoke("org/model", "--max-workers", "4", "--resume-download", "--local-dir-use-symlinks", "False")
    assert done.stdout == f"{snapshot}\n"
    assert "--max-workers has no effect: the number of connections follows from the measured rates" in done.stderr
    assert "--resume-download has no effect: downloads always resume" in done.stderr
    assert "--max-workers" not in invoke("org/model", "--max-workers", "4", "-q").output


def test_refused_options_say_what_to_do() -> None:
    assert "HF_TOKEN" in refused(InvalidInput, "org/model", "--token", "hf_secret")
    assert "hf_secret" not in refused(InvalidInput, "org/model", "--token", "hf_secret")
    assert "hf download" in refused(InvalidInput, "org/data", "--repo-type", "kernel")
    assert "disagree" in refused(InvalidInput, "datasets/org/data", "--repo-type", "space")
    assert "not with a torrent" in refused(InvalidInput, "some.torrent", "--repo-type", "dataset")
    assert "is not a model" in refused(InvalidInput, "org/data", "--repo-type", "dataset", "--load")


@pytest.mark.usefixtures("repo")
def test_the_output_formats_of_hf() -> None:
    assert json.loads(invoke("org/model", "--format", "json").stdout)["repo"] == "org/model"
    assert invoke("org/model", "--format", "quiet").stderr == ""


def test_one_named_file_prints_its_path(snapshot: Path) -> None:
    assert invoke("org/model", "config.json").stdout == f"{snapshot / 'config.json'}\n"
    assert invoke("org/model", "config.json", WEIGHTS).stdout == f"{snapshot}\n"


@pytest.mark.usefixtures("repo")
def test_names_that_the_snapshot_does_not_have_are_named() -> None:
    assert "has no none.json, no[1].txt" in refused(EntryNotFound, "org/model", "config.json", "none.json", "no[1].txt")


def test_files_are_copied_to_a_folder_that_hub_clients_know(repo: RepoCache, snapshot: Path, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    assert invoke("org/model", "--local-dir", folder).stdout == f"{folder}\n"
    manifest = repo.manifest(snapshot.name)
    assert manifest
    for file in manifest.files:
        copy = folder / file.path
        assert copy.read_bytes() == CONTENTS[file.path]
        assert not copy.is_symlink()
        known = read_download_metadata(folder, file.path)
        assert known
        assert (known.commit_hash, known.etag) == (snapshot.name, file.etag)
    assert (folder / ".cache/huggingface/.gitignore").read_text() == "*"
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and ".cache" not in p.parts) == (
        FILES
    )


def test_a_changed_copy_leaves_the_cache_alone_and_is_replaced(snapshot: Path, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    invoke("org/model", "config.json", "--local-dir", folder)
    inode = (folder / "config.json").stat().st_ino
    invoke("org/model", "config.json", "--local-dir", folder)
    assert (folder / "config.json").stat().st_ino == inode
    (folder / "config.json").write_bytes(b"x" * len(CONTENTS["config.json"]))
    os.utime(folder / "config.json", (2e9, 2e9))
    assert (snapshot / "config.json").read_bytes() == CONTENTS["config.json"]
    assert invoke("org/model", "config.json", "--local-dir", folder).stdout == f"{folder / 'config.json'}\n"
    assert (folder / "config.json").read_bytes() == CONTENTS["config.json"]


@pytest.mark.usefixtures("repo")
def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "is not a folder" in refused(InvalidInput, "org/model", "--local-dir", tmp_path / "file")


def test_force_download_finds_damage_that_the_record_does_not_show(repo: RepoCache, snapshot: Path) -> None:
    manifest = repo.manifest(snapshot.name)
    assert manifest
    [weights] = manifest.select([WEIGHTS])
    blob = repo.blob_path(weights)
    blob.write_bytes(bytes(weights.size))
    repo.mark_verified([weights])  # no program can set the ctime back, as a failing disk does
    assert invoke("org/model").stdout == f"{snapshot}\n"
    with pytest.raises(Unavailable):  # offline it cannot be fetched again
        invoke("org/model", "--force-download")


@pytest.mark.parametrize(
    ("line", "spread"),
    [
        ("org/m --include a b --json", "org/m --include a --include b --json"),
        ("org/m --exclude a b c -q d", "org/m --exclude a --exclude b --exclude c -q d"),
        ("--include a org/m b", "--include a org/m b"),
        ("org/m --include=a b", "org/m --include=a b"),
        ("org/m --revision x --include a b", "org/m --revision x --include a --include b"),
        ("--revision x --include a org/m", "--revision x --include a org/m"),
        ("org/m --include a -- b", "org/m --include a -- b"),
    ],
)
def test_several_patterns_after_one_option(line: str, spread: str) -> None:
    values = frozenset({"--include", "--exclude", "--revision"})
    assert _spread(line.split(), values) == spread.split()


@given(st.lists(st.sampled_from(["a", "--include", "--exclude", "--revision", "-q", "--", "-"])))
def test_no_argument_is_lost(args: list[str]) -> None:
    spread = _spread(args, frozenset({"--include", "--exclude", "--revision"}))
    rest = iter(spread)
    assert all(any(arg == each for each in rest) for arg in args)
