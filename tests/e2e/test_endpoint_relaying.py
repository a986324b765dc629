"""Requests that the daemon's hub endpoint relays, with Hugging Face's own clients."""

import random
from pathlib import Path

import pytest

from tests.support.endpoint_clients import DEAD, DOWNLOAD, REPO, apart, contents, daemon, shared
from tests.support.hub_clients import HubClient, each_hub_python, new_hub_python, old_hub_python, one_hub_python
from tests.support.processes import Nodes, served

__all__ = ["each_hub_python", "new_hub_python", "old_hub_python", "one_hub_python"]

ANNS = "hf_of_anna_alone"
BERTS = "hf_of_bert"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file that is in LFS, one that is not, and more than fits a page."""
    source = tmp_path / "source"
    (source / "data").mkdir(parents=True)
    (source / "README.md").write_text("---\nlicense: mit\n---\n")
    (source / "data" / "train.bin").write_bytes(random.Random(1).randbytes(12 << 20))
    return source


CALLS = """
import json, sys
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download
repo, kind = sys.argv[1:]
api, fs = HfApi(), HfFileSystem()
info = api.repo_info(repo, repo_type=kind, files_metadata=True)
whole = snapshot_download(repo, repo_type=kind)
with fs.open(f"{kind}s/{repo}/data/train.bin", "rb", block_size=1 << 20) as file:
    file.seek(5_000_000)
    part = file.read(10).hex()
print(json.dumps({
    "sha": info.sha,
    "sizes": {s.rfilename: s.size for s in info.siblings},
    "tree": sorted(e.path for e in api.list_repo_tree(repo, recursive=True, repo_type=kind)),
    "paths": [e.path for e in api.get_paths_info(repo, ["README.md", "none"], repo_type=kind)],
    "refs": [b.name for b in api.list_repo_refs(repo, repo_type=kind).branches],
    "exists": [api.file_exists(repo, name, repo_type=kind) for name in ("README.md", "none")],
    "there": [api.repo_exists(name, repo_type=kind) for name in (repo, "org/none")],
    "single": hf_hub_download(repo, "README.md", repo_type=kind, revision=info.sha),
    "whole": whole,
    "part": part,
}))
"""


@pytest.mark.parametrize("kind", ["dataset", "space"])
def test_datasets_and_spaces_come_from_the_mirrors(nodes: Nodes, data: Path, each_hub_python: Path, kind: str) -> None:
    """The first mirror breaks off each body midway, and both announce a chunk store that is unreachable."""
    options = ("--kind", f"{kind}s", "--xet")
    (first, log), (second, _) = nodes.hub(data, "drop:5000000", options=options), nodes.hub(data, options=options)
    running = daemon(nodes, "node", "127.0.0.11", "--endpoint", first, "--endpoint", second)
    seen = shared(nodes, "node", running, each_hub_python).script(CALLS, REPO, kind)
    train = data / "data" / "train.bin"
    names = {"README.md": (data / "README.md").stat().st_size, "data/train.bin": train.stat().st_size}
    assert seen["sizes"] == names
    assert seen["tree"] == ["README.md", "data", "data/train.bin"]
    assert (seen["paths"], seen["refs"]) == (["README.md"], ["main"])
    assert (seen["exists"], seen["there"]) == ([True, False], [True, False])
    assert Path(seen["single"]).read_bytes() == (data / "README.md").read_bytes()
    assert (Path(seen["whole"]) / "data" / "train.bin").read_bytes() == train.read_bytes()
    assert bytes.fromhex(seen["part"]) == train.read_bytes()[5_000_000:5_000_010]
    assert seen["whole"].endswith(f"{kind}s--org--model/snapshots/{seen['sha']}")
    assert not any("xet" in r["path"] for r in served(log))


def test_hf_downloads_a_dataset_and_verifies_it(nodes: Nodes, data: Path) -> None:
    hub, _ = nodes.hub(data, options=("--kind", "datasets"))
    running = daemon(nodes, "node", "127.0.0.11", "--endpoint", DEAD, "--endpoint", hub)
    client = apart(nodes, "elsewhere", running)
    client.hf("download", REPO, "--repo-type", "dataset")
    client.hf("cache", "verify", REPO, "--repo-type", "dataset", "--fail-on-missing-files", "--fail-on-extra-files")


WHOAMI = "import json; from huggingface_hub import HfApi; print(json.dumps(HfApi().whoami()['name']))"


@pytest.mark.parametrize("gated", [False, True], ids=["private", "gated"])
def test_a_clients_own_token_is_for_this_client(nodes: Nodes, data: Path, each_hub_python: Path, gated: bool) -> None:
    """Anna's client shares the daemon's cache. Bert, another client of the endpoint, has no access to her files."""
    hub, hub_log = nodes.hub(data, options=("--token", ANNS, *(("--gated",) if gated else ())))
    other, other_log = nodes.hub(data, options=("--token", "hf_of_nobody"))
    config = nodes.root / "p2pmodel.toml"
    config.write_text(
        f'[[mirrors]]\nname = "other"\nendpoint = "{other}"\n'
        f'[[mirrors]]\nname = "hub"\nendpoint = "{hub}"\nclient_tokens = true\n'
    )
    running = daemon(nodes, "node", "127.0.0.11", P2PMODEL_CONFIG=str(config))
    endpoint = str(running.ready()["hub"])
    anna = HubClient(each_hub_python, nodes.root / "node", endpoint, token=ANNS)
    assert anna.script(WHOAMI) == "somebody"
    snapshot = Path(anna.script(DOWNLOAD, REPO))
    assert (snapshot / "data" / "train.bin").read_bytes() == (data / "data" / "train.bin").read_bytes()

    theirs = apart(nodes, "elsewhere", running, each_hub_python)
    for token in (None, BERTS):
        bert = HubClient(each_hub_python, theirs.home, endpoint, token=token)
        with pytest.raises(AssertionError, match="exit 1"):
            bert.script(DOWNLOAD, REPO)
    assert not list(theirs.home.rglob("train.bin"))
    assert contents(Path(anna.script(DOWNLOAD, REPO)).parent / snapshot.name) == contents(data)
    assert not [t for t in nodes.ok("node", "status", "--json").json["transfers"] if t["progress"]["done"]]

    assert running.stop().code == 0
    assert {r["token"] for r in served(hub_log)} == {"", ANNS, BERTS}
    assert {r["token"] for r in served(other_log)} == {""}
    assert not written(nodes.root, ANNS.encode()) | written(nodes.root, BERTS.encode())
    assert not [line for line in (*running.out, *running.err) if ANNS in line or BERTS in line]


def written(root: Path, secret: bytes) -> set[Path]:
    """Files that have it in them, but for the logs of the hubs."""
    files = {path for path in root.rglob("*") if path.is_file() and not path.name.startswith("hub-")}
    return {path for path in files if secret in path.read_bytes()}
