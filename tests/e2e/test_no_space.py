"""Full and read-only disks: reported before the work if possible, and otherwise resumed without loss."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.disks import Disk, disk
from tests.support.processes import PATIENCE, Nodes, Running, eventually, served

__all__ = ["disk"]

REPO = "org/model"
SIZES = {"a.safetensors": 6_000_000, "b.safetensors": 5_000_000, "config.json": 100}
TOTAL = sum(SIZES.values())
UNRECORDED = 4_000_000
"""Bytes that a full disk may cost: what arrived last, and was not recorded or not written yet, on a slow machine."""
UNREACHABLE = "http://127.0.0.1:9"

NewDisk = Callable[[Path, str], Disk]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for name, size in SIZES.items():
        (folder / name).write_bytes(random.Random(name).randbytes(size))
    return folder


@pytest.fixture
def hub(nodes: Nodes, source: Path) -> tuple[str, Path]:
    return nodes.hub(source, "slow:1500000")


def sent(log: Path) -> int:
    return sum(entry["sent"] for entry in served(log))


def test_too_small_a_disk_is_an_error_before_any_download(
    nodes: Nodes, source: Path, hub: tuple[str, Path], disk: NewDisk, tmp_path: Path
):
    endpoint, log = hub
    torrent = tmp_path / "m.torrent"
    nodes.ok("seeder", "seed", source, "--as", REPO, "--once", "-q", "-o", torrent)
    disk(nodes.cache("node"), "5m")
    for args in (
        ("fetch", "-q", REPO, "--endpoint", endpoint),
        ("fetch", "-q", torrent, "--endpoint", endpoint),
        ("seed", "-q", REPO, "--endpoint", endpoint, "--once"),
        ("import", "-q", source, REPO),
    ):
        done = nodes.run("node", *args)
        assert (done.code, done.out) == (7, ""), done
        assert done.err.count("\n") == 1
        assert "has 5.2 MB free, 11.0 MB are needed; free some space, or name a folder on another disk" in done.err
    assert sent(log) == 0
    # What is small enough still comes.
    nodes.ok("node", "fetch", REPO, "--endpoint", endpoint, "--include", "*.json")


@pytest.mark.parametrize("verb", ["fetch from mirrors", "fetch from peers", "seed"])
def test_a_disk_that_fills_up_midway_loses_no_verified_bytes(
    nodes: Nodes, hub: tuple[str, Path], disk: NewDisk, verb: str
):
    endpoint, log = hub
    run = starter(nodes, endpoint, verb)
    small = disk(nodes.cache("node"), "13m")
    running = run()
    eventually(lambda: running.progress().get("done", 0) > 4_000_000, PATIENCE, lambda: "".join(running.err))
    had = running.progress()["done"]
    small.fill(9_000_000)
    done = running.wait()
    assert (done.code, done.out) == (7, ""), done
    line = done.err.splitlines()[-1]
    assert f"no space left on the disk at {small.path}" in line
    assert "run the same command: it resumes" in line
    assert not list(small.path.rglob("refs/main"))

    before = sent(log)
    small.remount("size=30m")
    running = run()
    assert running.wait().code == 0, running.err
    kept = max(json.loads(line)["from_cache"] for line in running.err if '"phase"' in line)
    assert kept >= had - UNRECORDED
    assert kept > 0
    assert sent(log) - before <= TOTAL - kept
    assert nodes.run("node", "verify", REPO).code == 0


def starter(nodes: Nodes, endpoint: str, verb: str) -> Callable[[], Running]:
    if verb == "seed":
        return lambda: nodes.start("node", "seed", REPO, "--endpoint", endpoint, "--once", "--progress", "json")
    if verb == "fetch from mirrors":
        return lambda: nodes.fetch("node", REPO, "--endpoint", endpoint)
    ready = nodes.seed(REPO, "--endpoint", endpoint, "--upload-limit", "4000000").ready()
    return lambda: nodes.fetch("node", REPO, "--endpoint", UNREACHABLE, "--coordinator", ready["coordinator"])


def test_a_read_only_cache_can_be_verified_and_served_but_not_written_to(
    nodes: Nodes, source: Path, hub: tuple[str, Path], disk: NewDisk
):
    endpoint, log = hub
    cache = disk(nodes.cache("node"), "30m")
    nodes.ok("node", "import", source, REPO)
    cache.remount("ro")
    for args in (
        ("fetch", "-q", "org/other", "--endpoint", endpoint),
        ("seed", "-q", "org/other", "--endpoint", endpoint, "--once"),
        ("import", "-q", source, "org/other"),
    ):
        done = nodes.run("node", *args)
        assert (done.code, done.out) == (7, ""), done
        assert done.err.count("\n") == 1
        assert f"cannot write to {cache.path}" in done.err
        assert "check its owner and mode, or choose another directory" in done.err
    assert sent(log) == 0
    nodes.ok("node", "verify", REPO)
    mirror, _ = nodes.mirror(node="node")
    nodes.ok("reader", "fetch", REPO, "--endpoint", mirror)
