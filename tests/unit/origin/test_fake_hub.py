"""The real client accepts the hub double, and each fault has its effect."""

import asyncio
import json
import signal
import sys

import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download

from tests.support.eventually import PATIENCE
from tests.support.fake_hub import FakeHub
from tests.support.hub_faults import Fault, parse_fault


async def test_the_real_client_downloads_from_it(snapshot, tmp_path):
    async with FakeHub(snapshot) as hub:
        folder = await asyncio.to_thread(
            snapshot_download, "org/model", endpoint=hub.url, cache_dir=tmp_path, token=False, max_workers=1
        )
    for path, data in snapshot.contents.items():
        assert (tmp_path / "models--org--model" / "snapshots" / snapshot.commit / path).read_bytes() == data
    assert folder.endswith(snapshot.commit)


async def test_the_real_client_follows_its_redirects(snapshot, tmp_path):
    async with FakeHub(snapshot, faults=["redirect"]) as hub:
        path = await asyncio.to_thread(
            hf_hub_download, "org/model", "config.json", endpoint=hub.url, cache_dir=tmp_path, token=False
        )
    assert path.endswith(f"{snapshot.commit}/config.json")
    assert (tmp_path / "models--org--model/blobs" / snapshot.file("config.json").etag).read_bytes() == b'{"a": 1}'


async def test_the_real_client_reads_its_listings(snapshot):
    async with FakeHub(snapshot, page=2) as hub:
        api = HfApi(endpoint=hub.url, token=False)
        tree = await asyncio.to_thread(lambda: list(api.list_repo_tree("org/model", recursive=True)))
        infos = await asyncio.to_thread(api.get_paths_info, "org/model", ["config.json"])
        refs = await asyncio.to_thread(api.list_repo_refs, "org/model")
    assert [entry.path for entry in tree] == ["config.json", "empty.txt", "w", "w/model.safetensors"]
    assert infos[0].blob_id == snapshot.file("config.json").git_oid
    assert refs.branches[0].target_commit == snapshot.commit


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("flip", Fault("flip")),
        ("503:2.5", Fault("503", 2.5)),
        ("drop:100@w/*.bin+5*3", Fault("drop", 100, "w/*.bin", 5, 3)),
        ("html@*.json", Fault("html", pattern="*.json")),
        ("stall*2", Fault("stall", times=2)),
    ],
)
def test_the_written_form_of_faults(text, fault):
    assert parse_fault(text) == fault


@pytest.mark.parametrize("text", ["", "flop", "503:x", "flip+", "flip*many"])
def test_invalid_faults_are_refused(text):
    with pytest.raises(ValueError, match="not a fault"):
        parse_fault(text)


async def test_as_a_process(tmp_path):
    (tmp_path / "hub" / "sub").mkdir(parents=True)
    (tmp_path / "hub" / "sub" / "a.bin").write_bytes(b"content")
    command = ["-m", "tests.support.fake_hub", "--dir", tmp_path / "hub", "--repo", "org/x", "--log", tmp_path / "log"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, "--fault", "html@*.json", stdout=asyncio.subprocess.PIPE
    )
    try:
        said = json.loads(await asyncio.wait_for(process.stdout.readline(), PATIENCE))
        files = await asyncio.to_thread(HfApi(endpoint=said["url"], token=False).list_repo_files, "org/x")
        assert files == ["sub/a.bin"]
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), PATIENCE)
    assert process.returncode == 0
    assert json.loads((tmp_path / "log").read_text().splitlines()[0])["status"] == 200
