"""`p2pmodel import` and `p2pmodel verify`: stdout, stderr, exit codes."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from p2pmodel.cli import main
from p2pmodel.core.content.names import RepoId
from p2pmodel.store.cache import HubCache
from tests.support.stored import CONTENTS, publish


@dataclass
class Outcome:
    code: int
    out: str
    err: str


class Command:
    """Runs the command line in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], hub: Path) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.hub = hub

    def __call__(self, *args: str) -> Outcome:
        self._monkeypatch.setattr(sys, "argv", ["p2pmodel", *args, "--cache-dir", str(self.hub)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = self._capsys.readouterr()
        return Outcome(int(ended.value.code or 0), captured.out, captured.err)


@pytest.fixture
def p2pmodel(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return Command(monkeypatch, capsys, tmp_path / "hub")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "my model"
    for path, data in CONTENTS.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def test_import_prints_the_path_and_verify_agrees(p2pmodel: Command, source: Path) -> None:
    done = p2pmodel("import", str(source), "org/model")
    assert done.code == 0
    repo = HubCache(p2pmodel.hub).repo(RepoId("org/model"))
    path = repo.snapshot(repo.refs()["main"])
    assert done.out == f"{path}\n"
    assert p2pmodel("verify", "org/model") == Outcome(0, f"{path}\n", p2pmodel("verify", "org/model").err)
    assert p2pmodel("verify", "-q", f"hf://org/model@{path.name}") == Outcome(0, f"{path}\n", "")


def test_json_is_one_object(p2pmodel: Command, source: Path) -> None:
    done = json.loads(p2pmodel("import", str(source), "org/model@v1", "--json", "--private").out)
    assert done["repo"] == "org/model"
    assert done["files"] == len(CONTENTS)
    assert done["size"] == sum(map(len, CONTENTS.values()))
    manifest = HubCache(p2pmodel.hub).repo(RepoId("org/model")).manifest(done["commit"])
    assert manifest
    assert manifest.private
    report = json.loads(p2pmodel("verify", "org/model", "--revision", "v1", "--json").out)
    assert report == {
        "repo": "org/model", "commit": done["commit"], "path": done["path"], "size": done["size"],
        "ok": len(CONTENTS), "missing": [], "corrupt": [], "unreadable": [], "vouched_by": None,
        "model_signature": None,
    }  # fmt: skip


def test_verify_names_every_bad_file_and_exits_with_5(p2pmodel: Command) -> None:
    cache = HubCache(p2pmodel.hub)
    manifest = publish(cache)
    repo = cache.repo(manifest.repo)
    repo.blob_path(manifest.files[0]).unlink()
    repo.blob_path(manifest.files[2]).write_bytes(b"\0" * manifest.files[2].size)
    done = p2pmodel("verify", "org/model", "-q")
    assert done.code == 5
    assert done.out == ""
    hint = f"repair it with 'p2pmodel fetch org/model@{manifest.commit}'"
    assert done.err.splitlines() == [
        "missing: config.json",
        "corrupt: model-00001.safetensors",
        f"p2pmodel: 1 file missing, 1 corrupt of 4 in org/model@{manifest.commit}; {hint}",
    ]
    plain = p2pmodel("verify", "org/model", "--json")
    assert plain.code == 5
    assert json.loads(plain.out)["missing"] == ["config.json"]
    assert json.loads(plain.out)["corrupt"] == ["model-00001.safetensors"]


@pytest.mark.parametrize("name", ["org/model", "org/model@v9", "org/other", f"org/model@{'0' * 40}"])
def test_verify_of_an_absent_snapshot_exits_with_3(p2pmodel: Command, name: str) -> None:
    (p2pmodel.hub).mkdir()
    if name != "org/model":
        publish(HubCache(p2pmodel.hub))
    done = p2pmodel("verify", name)
    assert (done.code, done.out) == (3, "")
    assert "is not in the cache" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("import", "nowhere", "org/model"), 2, "nowhere is not a directory"),
        (("import", "."), 2, "Missing argument 'REPO[@REV]'"),
        (("import", ".", "a/b/c"), 2, "'a/b/c' is not a repository id"),
        (("verify", "org/model@../x"), 2, "is not a revision"),
    ],
)
def test_usage_errors_are_one_line(p2pmodel: Command, args: tuple[str, ...], code: int, words: str) -> None:
    done = p2pmodel(*args)
    assert (done.code, done.out) == (code, "")
    assert words in done.err
    assert done.err.count("\n") == 1
    assert not p2pmodel.hub.exists()


def test_a_cache_that_is_a_file_exits_with_7(p2pmodel: Command, source: Path) -> None:
    p2pmodel.hub.write_text("oops")
    done = p2pmodel("import", str(source), "org/model", "-q")
    assert (done.code, done.out) == (7, "")
    assert str(p2pmodel.hub) in done.err
    assert done.err.count("\n") == 1
