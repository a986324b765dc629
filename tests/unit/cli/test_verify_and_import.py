"""`p2pmodel import` and `p2pmodel verify`: stdout, stderr, exit codes."""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from p2pmodel.cli import main
from p2pmodel.core.content.names import RepoId
from p2pmodel.store.cache import HubCache
from tests.support.hub_layout import write_snapshot
from tests.support.hub_snapshot import snapshot_of
from tests.support.stored import CONTENTS, publish, stage


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


def quick(p2pmodel: Command, *args: str) -> Outcome:
    return p2pmodel("verify", "--quick", *args)


@pytest.mark.parametrize("by", ["p2pmodel", "huggingface_hub", "huggingface_hub without a list"])
def test_a_quick_look_at_a_whole_snapshot_reads_no_content(
    p2pmodel: Command, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    manifest = (
        publish(HubCache(p2pmodel.hub))
        if by == "p2pmodel"
        else write_snapshot(p2pmodel.hub, "org/model", CONTENTS, tree="without" not in by)
    )
    path = p2pmodel.hub / "models--org--model/snapshots" / manifest.commit
    with monkeypatch.context() as patched:
        patched.setattr("p2pmodel.store.verify.chunks", unread)
        assert quick(p2pmodel, "org/model", "-q") == Outcome(0, f"{path}\n", "")
        loud = quick(p2pmodel, "org/model")
    assert ("no list of the hub is on record" in loud.err) == ("without" in by)
    found = json.loads(quick(p2pmodel, "org/model", "--json").out)
    assert (found["ok"], found["listed"]) == (4, "without" not in by)
    assert found["unverified"] == (0 if by == "p2pmodel" else 4)


def unread(*_: object) -> None:
    raise AssertionError("a content was read")


FAULTS = {
    "no blob": "1 file missing of 4 in {} (model-00001.safetensors); 179.2 kB to fetch; "
    "mend it with 'p2pmodel fetch {}'",
    "no link": "1 file missing of 4 in {} (model-00001.safetensors); mend it with 'p2pmodel fetch {}'",
    "a link elsewhere": "1 file missing of 4 in {} (model-00001.safetensors); mend it with 'p2pmodel fetch {}'",
    "too short": "1 file missing of 4 in {} (model-00001.safetensors); 179.2 kB to fetch; "
    "mend it with 'p2pmodel fetch {}'",
    "no folder": "4 files missing of 4 in {} (config.json, ...); mend it with 'p2pmodel fetch {}'",
    "begun again": "1 file missing of 4 in {} (model-00001.safetensors); 179.2 kB to fetch, 98.3 kB of them staged; "
    "mend it with 'p2pmodel fetch {}'",
    "rewritten": "1 file changed since verified of 4 in {} (model-00001.safetensors); hash them with "
    "'p2pmodel verify {}': they may be right",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_quick_look_names_what_is_wrong_in_one_line(p2pmodel: Command, fault: str) -> None:
    cache = HubCache(p2pmodel.hub)
    manifest = publish(cache)
    repo = cache.repo(manifest.repo)
    file = next(each for each in manifest.files if each.path == "model-00001.safetensors")
    blob, link = repo.blob_path(file), repo.snapshot(manifest.commit) / file.path
    if fault in ("no blob", "begun again"):
        blob.unlink()
    if fault == "begun again":
        stage(repo, manifest, file, b"\0" * 98_304)
    if fault in ("no link", "a link elsewhere"):
        link.unlink()
    if fault == "a link elsewhere":
        link.symlink_to("/etc/hostname")
    if fault == "too short":
        blob.write_bytes(b"\0" * (file.size - 1))
    if fault == "no folder":
        shutil.rmtree(link.parent)
    if fault == "rewritten":
        blob.write_bytes(b"\0" * file.size)
    which = f"org/model@{manifest.commit}"
    done = quick(p2pmodel, which if fault == "no folder" else "org/model")
    if fault == "no folder":
        assert (done.code, done.out, done.err.count("\n")) == (3, "", 1)
        done = quick(p2pmodel, "org/model")
    assert done == Outcome(5, "", f"p2pmodel: {FAULTS[fault].format(which, which)}\n")
    assert (json.loads(quick(p2pmodel, "org/model", "--json").out)["ok"]) == (0 if fault == "no folder" else 3)


def test_a_quick_look_does_not_mind_what_is_staged_of_others(p2pmodel: Command) -> None:
    cache = HubCache(p2pmodel.hub)
    manifest = publish(cache)
    repo = cache.repo(manifest.repo)
    other = snapshot_of({"model-00001.safetensors": b"another one"}).manifest
    stage(repo, other, other.files[0], b"an")
    (repo.folder / "blobs" / f"{manifest.files[2].etag}.incomplete").write_bytes(b"\0")
    assert quick(p2pmodel, "org/model", "-q").code == 0


def test_a_quick_look_knows_what_a_full_pass_found(p2pmodel: Command) -> None:
    manifest = publish(HubCache(p2pmodel.hub))
    blob = p2pmodel.hub / "models--org--model/blobs" / manifest.files[2].etag
    before = blob.stat()
    blob.write_bytes(b"\0" * before.st_size)
    os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))
    # The clock of the last change, which no program sets, still tells: the content is no longer vouched for.
    assert json.loads(quick(p2pmodel, "org/model", "--json").out)["unverified"] == 1
    assert p2pmodel("verify", "org/model", "-q").code == 5
    done = quick(p2pmodel, "org/model", "-q")
    assert (done.code, "1 file damaged of 4" in done.err) == (5, True)


def test_a_quick_look_changes_nothing(p2pmodel: Command) -> None:
    write_snapshot(p2pmodel.hub, "org/model", CONTENTS)
    before = sorted(p2pmodel.hub.rglob("*"))
    assert quick(p2pmodel, "org/model").code == 0
    assert sorted(p2pmodel.hub.rglob("*")) == before
