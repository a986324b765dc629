"""File systems without symlinks, and network disks on which flock does not reach other machines: real processes, and
huggingface_hub in the same cache."""

import json
import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.disks import two_hosts
from tests.support.processes import ROOT, Nodes, served

__all__ = ["two_hosts"]

REPO = "org/model"
SIZES = {"a.safetensors": 3_000_000, "b.safetensors": 2_000_000, "config.json": 100}
TOTAL = sum(SIZES.values())

NO_SYMLINKS = """
import errno, os
real, cache = os.symlink, os.path.realpath(os.environ["HF_HUB_CACHE"])
def symlink(source, target, *more, **where):
    folder = f"/proc/self/fd/{where['dir_fd']}" if "dir_fd" in where else os.path.dirname(target)
    if os.path.realpath(folder).startswith(cache):
        raise OSError(errno.EPERM, "Operation not permitted", str(target))
    real(source, target, *more, **where)
os.symlink = symlink
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for name, size in SIZES.items():
        (folder / name).write_bytes(random.Random(name).randbytes(size))
    return folder


@pytest.fixture
def no_symlinks(tmp_path: Path) -> dict[str, str]:
    """The environment of a Python program that can make no symlinks in its cache."""
    shim = tmp_path / "shim"
    shim.mkdir()
    (shim / "sitecustomize.py").write_text(NO_SYMLINKS)
    return {"PYTHONPATH": f"{shim}{os.pathsep}{ROOT}"}


def hf_download(nodes: Nodes, node: str, endpoint: str, **env: str) -> None:
    """The real client, into the cache of `node`."""
    program = "import sys; from huggingface_hub import snapshot_download as get; get(sys.argv[1])"
    done = nodes.program(
        node, sys.executable, "-c", program, REPO, HF_ENDPOINT=endpoint, HF_HUB_DISABLE_XET="1", **env
    ).wait()
    assert done.code == 0, done.err


def contents(cache: Path) -> dict[str, bytes]:
    [snapshot] = (cache / "models--org--model" / "snapshots").iterdir()
    return {each.name: each.read_bytes() for each in snapshot.iterdir()}


def expected(source: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in source.iterdir()}


def test_without_symlinks_either_program_uses_what_the_other_has_downloaded(
    nodes: Nodes, source: Path, no_symlinks: dict[str, str]
) -> None:
    endpoint, log = nodes.hub(source)
    nodes.ok("node", "fetch", REPO, "--endpoint", endpoint, "-q", **no_symlinks)
    assert contents(nodes.cache("node")) == expected(source)
    sent = sum(entry["sent"] for entry in served(log))
    hf_download(nodes, "node", endpoint, **no_symlinks)
    assert contents(nodes.cache("node")) == expected(source)

    hf_download(nodes, "other", endpoint, **no_symlinks)
    before = sum(entry["sent"] for entry in served(log))
    assert before >= sent + TOTAL
    done = nodes.fetch("other", REPO, "--endpoint", endpoint).wait()
    assert json.loads(done.out)["from_cache"] == TOTAL
    assert not any(path.is_symlink() for path in nodes.cache("other").rglob("snapshots/*/*"))
    assert sum(entry["sent"] for entry in served(log)) - before < min(SIZES.values()) + 20_000, "metadata alone"
    seeding = nodes.seed(REPO, "--endpoint", endpoint, node="other", **no_symlinks).ready()
    where = ("--coordinator", seeding["coordinator"], "--endpoint", endpoint)
    done = nodes.fetch("peer", REPO, *where, "--seed-time", "0.1", **no_symlinks).wait()
    assert json.loads(done.out)["from_mirrors"] == 0
    assert contents(nodes.cache("peer")) == expected(source)
    nodes.ok("peer", "verify", REPO)


@pytest.mark.needs("bindfs", "fusermount3")
def test_two_machines_and_a_hub_client_fill_one_network_disk_at_once(
    nodes: Nodes, source: Path, two_hosts: tuple[Path, Path], tmp_path: Path
) -> None:
    endpoint, _ = nodes.hub(source, "slow:2000000")
    running = [
        nodes.fetch(name, REPO, "--endpoint", endpoint, HF_HUB_CACHE=str(host))
        for name, host in zip(("a", "b"), two_hosts, strict=True)
    ]
    with ThreadPoolExecutor(1) as client:
        hub = client.submit(hf_download, nodes, "c", endpoint, HF_HUB_CACHE=str(two_hosts[1]))
        done = [each.wait() for each in running]
        hub.result()
    assert [each.code for each in done] == [0, 0], done
    assert contents(tmp_path / "shared") == expected(source)
    nodes.ok("a", "verify", REPO, HF_HUB_CACHE=str(tmp_path / "shared"))
    fetched = sorted(json.loads(each.out)["from_mirrors"] for each in done)
    assert fetched[0] == 0, "the second machine has waited for the first"
