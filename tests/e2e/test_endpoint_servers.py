"""The hub requests of vLLM and SGLang before they load a model, through the daemon's endpoint."""

import json
import random
import struct
from pathlib import Path

import pytest

from tests.support.endpoint_clients import DEAD, apart, daemon, shared
from tests.support.hub_clients import each_hub_python, new_hub_python, old_hub_python, one_hub_python
from tests.support.processes import Nodes, served
from tests.support.tiny_models import dense

__all__ = ["dense", "each_hub_python", "new_hub_python", "old_hub_python", "one_hub_python"]

REPO = "org/tiny-vl"

VLLM = """
import fnmatch, json, os, sys
from filelock import FileLock
from huggingface_hub import HfApi, HfFileSystem, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
repo = sys.argv[1]
api = HfApi(library_name="vllm", library_version="0")
fs = HfFileSystem()
revision = api.resolve_revision(repo) if hasattr(api, "resolve_revision") else None
files = api.list_repo_files(repo, revision=revision)
assert try_to_load_from_cache(repo, "config.json", revision=revision) is None
for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
    api.hf_hub_download(repo, name, revision=revision)
absent = []
for name in ("params.json", "modules.json", "hf_quant_config.json"):
    try:
        api.hf_hub_download(repo, name, revision=revision)
    except EntryNotFoundError:
        absent.append(api.file_exists(repo, name, revision=revision))
headers = api.get_safetensors_metadata(repo, revision=revision)
listed = fs.ls(repo, detail=False, revision=revision)
patterns = [p for p in ("*.safetensors", "*.bin") if fnmatch.filter(listed, p)][:1]
with FileLock(os.path.join(os.environ["HOME"], repo.replace("/", "-") + ".lock")):
    folder = api.snapshot_download(repo, allow_patterns=patterns, ignore_patterns=["original/**/*"], revision=revision)
api.hf_hub_download(repo, "model.safetensors.index.json", revision=revision)
print(json.dumps([sorted(files), absent, sorted(headers.weight_map), folder]))
"""

SGLANG = """
import json, sys
from huggingface_hub import HfApi, HfFileSystem, snapshot_download
repo = sys.argv[1]
api, fs = HfApi(), HfFileSystem()
files = [s.rfilename for s in api.model_info(repo, files_metadata=True).siblings]
assert api.repo_exists(repo) and api.file_exists(repo, "config.json")
snapshot_download(repo, allow_patterns=["*.json"], ignore_patterns=["*.pt", "*.safetensors", "*.bin"])
shards = fs.glob(f"{repo}/*.safetensors")
absent = [fs.exists(f"{repo}/hf_quant_config.json") for _ in range(3)]
headers = api.get_safetensors_metadata(repo)
folder = snapshot_download(repo, allow_patterns=["*.safetensors"], ignore_patterns=["original/**/*"])
assert len(shards) > 1
print(json.dumps([sorted(files), absent, sorted(headers.weight_map), folder]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("calls", [VLLM, SGLANG], ids=["vllm", "sglang"])
def test_requests_of_inference_servers(nodes: Nodes, dense: Path, each_hub_python: Path, calls: str) -> None:
    """With hf_xet installed, as it is by default."""
    hub, _ = nodes.hub(dense, repo=REPO, options=("--xet",))
    running = daemon(nodes, "node", "127.0.0.11", "--endpoint", hub)
    ours = shared(nodes, "node", running, each_hub_python)
    found = {}
    for client in (ours, apart(nodes, "elsewhere", running, each_hub_python)):
        files, absent, tensors, folder = client.script(calls, REPO)
        assert files == sorted(p.name for p in dense.iterdir())
        assert absent == [False] * 3
        shards = {p.name: p.read_bytes() for p in dense.glob("*.safetensors")}
        assert {p.name: p.read_bytes() for p in Path(folder).glob("*.safetensors")} == shards
        found[client.home] = tensors
    assert len(found) == 2
    assert len(set(map(tuple, found.values()))) == 1
    by_us = [r for r in served(nodes.root / "node.log") if r["method"] == "GET" and "/resolve/" in r["path"]]
    whole = [r for r in by_us if r["range"] is None]
    assert len({r["path"] for r in whole}) == len(whole), "each file once, for the client with its own cache"


HEADERS = """
import json, sys
from huggingface_hub import HfApi
print(json.dumps(sorted(HfApi().get_safetensors_metadata(sys.argv[1]).weight_map)))
"""


def test_header_requests_wait_for_missing_weights(nodes: Nodes, tmp_path: Path, each_hub_python: Path) -> None:
    """The last shard appears long after the deadline of other requests; these clients do not retry."""
    source = tmp_path / "source"
    source.mkdir()
    shards = {f"t{n}": f"model-{n + 1:05d}-of-00003.safetensors" for n in range(3)}
    for name, path in shards.items():
        size = 8 << 20
        header = json.dumps({name: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
        (source / path).write_bytes(struct.pack("<Q", len(header)) + header + random.Random(name).randbytes(size))
    (source / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    seeder = nodes.seed(source, "--as", REPO, "--upload-limit", "2000000").ready()["coordinator"]
    running = daemon(nodes, "node", "127.0.0.11", "--coordinator", str(seeder), "--endpoint", DEAD)
    assert shared(nodes, "node", running, each_hub_python).script(HEADERS, REPO) == sorted(shards)
    assert 429 not in {r["status"] for r in served(nodes.root / "node.log")}
