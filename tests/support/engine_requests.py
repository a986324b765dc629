"""What inference engines ask of HF_ENDPOINT before they load a model, replayed without the engines.

Run as a program: `python engine_requests.py vllm|llama.cpp REPO FOLDER` downloads REPO as that engine does, prints the
sizes of its files as JSON, and uses only HF_ENDPOINT. vLLM asks through huggingface_hub; llama.cpp has requests of its
own (common/hf-cache.cpp and common/download.cpp): refs, the tree of the commit, then HEAD and GET of each file.
"""

import json
import os
import sys
import urllib.request
from pathlib import Path


def llama_cpp(repo: str, folder: Path) -> dict[str, int]:
    endpoint = os.environ["HF_ENDPOINT"].rstrip("/")
    common = {"User-Agent": "llama-cpp/b7000", "Authorization": f"Bearer {os.environ['HF_TOKEN']}"}

    def ask(path: str, method: str = "GET", **headers: str) -> tuple[dict[str, str], bytes]:
        request = urllib.request.Request(f"{endpoint}/{path}", method=method, headers=common | headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return dict(answer.headers), answer.read()

    branches = json.loads(ask(f"api/models/{repo}/refs", Accept="application/json")[1])["branches"]
    commit = next(branch["targetCommit"] for branch in branches if branch["name"] == "main")
    listing = json.loads(ask(f"api/models/{repo}/tree/{commit}?recursive=true", Accept="application/json")[1])
    sizes = {}
    for entry in listing:
        if entry["type"] != "file" or not entry["path"].endswith((".gguf", ".safetensors", ".json")):
            continue
        path = f"{repo}/resolve/{commit}/{entry['path']}"
        head, _ = ask(path, "HEAD")
        assert head["ETag"].strip('"') == (entry["lfs"]["oid"] if "lfs" in entry else entry["oid"])
        half = int(head["Content-Length"]) // 2
        with (folder / Path(entry["path"]).name).open("wb") as out:
            out.write(ask(path)[1][:half])  # a download that was interrupted, and its resumption
            out.write(ask(path, Range=f"bytes={half}-")[1] if half else ask(path)[1])
        sizes[entry["path"]] = (folder / Path(entry["path"]).name).stat().st_size
    return sizes


def vllm(repo: str, folder: Path) -> dict[str, int]:
    from huggingface_hub import (
        HfApi,
        HfFileSystem,
        file_exists,
        get_safetensors_metadata,
        hf_hub_download,
        list_repo_files,
        snapshot_download,
    )

    api = HfApi()
    assert api.model_info(repo).sha
    assert file_exists(repo, "config.json")
    assert not file_exists(repo, "params.json")
    assert "config.json" in list_repo_files(repo)
    hf_hub_download(repo, "config.json", cache_dir=folder)
    assert HfFileSystem().ls(repo, detail=False)
    assert get_safetensors_metadata(repo).files_metadata
    found = snapshot_download(
        repo, cache_dir=folder, allow_patterns=["*.safetensors"], ignore_patterns=["original/**/*"]
    )
    snapshot_download(repo, cache_dir=folder, allow_patterns=["*.json", "*.txt", "*.jinja"])
    return {path.name: path.stat().st_size for path in Path(found).iterdir()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"vllm": vllm, "llama.cpp": llama_cpp}[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))))
