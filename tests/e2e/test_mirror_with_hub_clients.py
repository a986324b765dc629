"""The mirror with Hugging Face's own clients: huggingface_hub of two generations, `hf`, transformers."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference
from p2pmodel.store.cache import HubCache
from p2pmodel.store.importer import import_directory
from tests.support.eventually import PATIENCE
from tests.support.hub_clients import HubClient, new_hub_python, old_hub_python
from tests.support.hub_layout import write_snapshot
from tests.support.mirror_process import MirrorProcess, mirror_process
from tests.support.tiny_models import dense

__all__ = ["dense", "new_hub_python", "old_hub_python"]

REPO = "org/tiny"
ODD = "sub dir/d\u00e9j\u00e0 #1%+.txt"
FILES = {
    "config.json": b'{"model_type": "tiny"}',
    "model.safetensors": os.urandom(1 << 20) * 12,
    "empty.txt": b"",
    ODD: b"odd name",
    "onnx/deeper/x.bin": b"nested",
}
TOKEN = "a-secret-token-of-a-mirror"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mirror") / "hub"


@pytest.fixture(scope="module")
def manifest(hub: Path) -> Manifest:
    write_snapshot(hub, "gpt2", {"config.json": b'{"one": "segment"}'})
    return write_snapshot(hub, REPO, FILES, refs=("main", "v1.0", "refs/pr/1"))


@pytest.fixture(scope="module")
def mirror(hub: Path, manifest: Manifest) -> Iterator[MirrorProcess]:
    with mirror_process(hub, hub.parent / "access.jsonl") as running:
        yield running


@pytest.fixture(params=["old_hub_python", "new_hub_python"], ids=["hub-0.36", "hub-2"])
def python(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def client(python: Path, mirror: MirrorProcess, tmp_path: Path) -> HubClient:
    return HubClient(python, tmp_path, mirror.endpoint)


def contents(snapshot: Path) -> dict[str, bytes]:
    return {p.relative_to(snapshot).as_posix(): p.read_bytes() for p in snapshot.rglob("*") if p.is_file()}


API = """
import json, sys
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
api, repo, odd = HfApi(), *sys.argv[1:]
info = api.model_info(repo, files_metadata=True)
paths = api.get_paths_info(repo, [odd, "onnx", "absent"], revision="refs/pr/1")
refs = api.list_repo_refs(repo, include_pull_requests=True)
meta = get_hf_file_metadata(hf_hub_url(repo, odd, revision="refs/pr/1"))
print(json.dumps({
    "sha": info.sha,
    "files": {s.rfilename: [s.size, s.blob_id, s.lfs.sha256 if s.lfs else None] for s in info.siblings},
    "list": sorted(api.list_repo_files(repo, revision="v1.0")),
    "top": sorted(e.path for e in api.list_repo_tree(repo)),
    "paths": [[type(p).__name__, p.path] for p in paths],
    "refs": [sorted(b.name for b in refs.branches), [p.ref for p in refs.pull_requests]],
    "meta": [meta.etag, meta.size, meta.commit_hash, meta.location.startswith(api.endpoint)],
    "exists": [api.repo_exists(repo), api.repo_exists("org/none"), api.revision_exists(repo, "v1.0"),
               api.revision_exists(repo, "v9"), api.file_exists(repo, odd), api.file_exists(repo, "none")],
}))
"""


def test_the_api_describes_the_snapshot(client: HubClient, manifest: Manifest) -> None:
    seen = client.script(API, REPO, ODD)
    odd = manifest.file(ODD)
    assert odd is not None
    assert seen["sha"] == manifest.commit
    assert seen["files"] == {f.path: [f.size, f.git_oid, f.sha256] for f in manifest.files}
    assert seen["list"] == sorted(FILES)
    assert seen["top"] == ["config.json", "empty.txt", "model.safetensors", "onnx", "sub dir"]
    assert seen["paths"] == [["RepoFile", ODD], ["RepoFolder", "onnx"]]
    assert seen["refs"] == [["main", "v1.0"], ["refs/pr/1"]]
    assert seen["meta"] == [odd.etag, odd.size, manifest.commit, True]
    assert seen["exists"] == [True, False, True, False, True, False]


DOWNLOAD = """
import json, sys
from huggingface_hub import hf_hub_download, snapshot_download
repo, revision, odd = sys.argv[1:]
print(json.dumps([snapshot_download(repo, revision=revision), hf_hub_download(repo, odd, revision="refs/pr/1"),
                  hf_hub_download("gpt2", "config.json")]))
"""


@pytest.mark.parametrize("revision", ["main", "refs/pr/1", "commit"])
def test_a_download_is_the_same_snapshot(client: HubClient, manifest: Manifest, hub: Path, revision: str) -> None:
    wanted = manifest.commit if revision == "commit" else revision
    snapshot, odd, single = client.script(DOWNLOAD, REPO, wanted, ODD)
    assert Path(snapshot).name == manifest.commit
    assert contents(Path(snapshot)) == FILES
    assert Path(odd).read_bytes() == FILES[ODD]
    assert json.loads(Path(single).read_bytes()) == {"one": "segment"}
    ours, theirs = (folder / manifest.repo.cache_folder / "blobs" for folder in (hub, client.hub))
    assert sorted(p.name for p in theirs.iterdir()) == sorted(p.name for p in ours.iterdir())


def test_hf_download_and_verify(mirror: MirrorProcess, new_hub_python: Path, tmp_path: Path) -> None:
    client = HubClient(new_hub_python, tmp_path, mirror.endpoint)
    client.hf("download", REPO, "--revision", "v1.0")
    client.hf("download", REPO)
    client.hf("cache", "verify", REPO, "--fail-on-missing-files", "--fail-on-extra-files")
    blob = max((client.hub / "models--org--tiny" / "blobs").iterdir(), key=lambda p: p.stat().st_size)
    blob.resolve().write_bytes(b"x" * blob.stat().st_size)
    with pytest.raises(AssertionError, match="exit 1"):
        client.hf("cache", "verify", REPO)


def test_the_old_hf_downloads(mirror: MirrorProcess, old_hub_python: Path, tmp_path: Path) -> None:
    printed = HubClient(old_hub_python, tmp_path, mirror.endpoint).hf("download", REPO, "--include", "*.json")
    assert contents(Path(printed.strip().splitlines()[-1])) == {"config.json": FILES["config.json"]}


REFUSALS = """
import json, sys
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
found = []
for repo, revision, path in (("org/none", None, "x"), (sys.argv[1], "v9", "x"), (sys.argv[1], None, "x")):
    try:
        hf_hub_download(repo, path, revision=revision)
    except HfHubHTTPError as error:
        found.append([c.__name__ for c in type(error).__mro__] + [error.response.status_code])
print(json.dumps([found, type(try_to_load_from_cache(sys.argv[1], "x")).__name__]))
"""


def test_refusals_raise_the_clients_own_errors(client: HubClient) -> None:
    found, remembered = client.script(REFUSALS, REPO)
    names = ("RepositoryNotFoundError", "RevisionNotFoundError", "EntryNotFoundError")
    assert len(found) == len(names)
    assert all(name in error and 404 in error for name, error in zip(names, found, strict=True))
    assert remembered == "object", "an absent file is remembered as absent"


PRIVATE = """
import json, sys
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
try:
    print(json.dumps(open(hf_hub_download(sys.argv[1], "config.json"), "rb").read().decode()))
except RepositoryNotFoundError as error:
    print(json.dumps(["RepositoryNotFoundError", error.response.status_code]))
except Exception as error:
    http = error if isinstance(error, HfHubHTTPError) else error.__cause__
    print(json.dumps([type(http).__name__, http.response.status_code]))
"""


def test_a_token_is_required_and_accepted(hub: Path, manifest: Manifest, python: Path, tmp_path: Path) -> None:
    with mirror_process(hub, tmp_path / "log", "--token-env", "MIRROR_TOKEN", env={"MIRROR_TOKEN": TOKEN}) as running:
        answers = [
            HubClient(python, tmp_path, running.endpoint, token=token).script(PRIVATE, REPO)
            for token in (None, "wrong", TOKEN)
        ]
        assert TOKEN not in running.log.read_text()
    assert answers == [["RepositoryNotFoundError", 401], ["HfHubHTTPError", 401], FILES["config.json"].decode()]


FROM_PRETRAINED = """
import json, sys
from transformers import AutoConfig, AutoTokenizer, Qwen3VLForConditionalGeneration
config = AutoConfig.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = Qwen3VLForConditionalGeneration.from_pretrained(sys.argv[1])
print(json.dumps([config.model_type, len(tokenizer("a red circle")["input_ids"]) > 0, model.num_parameters() > 0]))
"""


@pytest.mark.slow
def test_from_pretrained_loads_a_model_by_its_name(dense: Path, new_hub_python: Path, tmp_path: Path) -> None:
    hub = tmp_path / "published"
    manifest = import_directory(HubCache(hub), dense, Reference.parse("org/tiny-vl"))
    with mirror_process(hub, tmp_path / "log") as running:
        client = HubClient(new_hub_python, tmp_path / "client", running.endpoint)
        client.home.mkdir()
        assert client.script(FROM_PRETRAINED, "org/tiny-vl") == ["qwen3_vl", True, True]
        weights = [r for r in running.requests() if r["method"] == "GET" and r["path"].endswith(".safetensors")]
    shards = {f.path: f.size for f in manifest.files if f.path.endswith(".safetensors")}
    assert {r["path"].rpartition("/")[2]: r["bytes"] for r in weights} == shards
    assert len(weights) == len(shards)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_the_mirror(hub: Path, tmp_path: Path, number: int, code: int) -> None:
    with mirror_process(hub, tmp_path / "log") as running:
        assert running.stop(number) == code


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--listen", "{taken}"], 7, "the port is in use"),
        (["--listen", "0.0.0.0:0"], 2, "--insecure-public"),
        (["--listen", "8090"], 2, "ADDRESS:PORT"),
        (["--token-env", "NO_SUCH_VARIABLE"], 2, "NO_SUCH_VARIABLE"),
        (["--token-file", "/no/such/file"], 2, "/no/such/file"),
        (["--token-file", "/dev/null", "--token-env", "X"], 2, "are both given"),
        (["--access-log", "/no/such/folder/log"], 7, "/no/such/folder/log"),
    ],
)
def test_a_mirror_that_cannot_start_reports_the_reason_in_one_line(
    mirror: MirrorProcess, options: list[str], code: int, words: str
) -> None:
    taken = mirror.endpoint.removeprefix("http://")
    command = [sys.executable, "-m", "p2pmodel", "mirror", "serve", *[o.format(taken=taken) for o in options]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
