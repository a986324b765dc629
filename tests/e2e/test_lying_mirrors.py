"""Mirrors that send wrong bytes or fail for a while: no wrong byte is published, and a good mirror completes the job.

Every case in three ways: mirrored by `seed`, by `fetch` from the mirrors alone, and by `fetch` of a torrent without
seeders, so that its pieces come from the mirrors.
"""

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.cache_watch import CacheWatch, etags_of
from tests.support.processes import Nodes, Running, served

REPO = "org/model"
WEIGHTS = "sub/weights.safetensors"
WAYS = ("seed", "fetch", "swarm")
FAULTS = {
    "a flipped byte": ("flip", WEIGHTS),
    "a flipped byte in a file outside LFS": ("flip", "config.json"),
    "a truncated file": ("truncate", WEIGHTS),
    "an HTML page": ("html", WEIGHTS),
    "another commit": ("other-commit", WEIGHTS),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("model")
    for name, content in {
        "config.json": b'{"model_type": "none"}',
        "empty.txt": b"",
        WEIGHTS: random.Random(1).randbytes(3_000_000),
        "other.safetensors": random.Random(2).randbytes(500_000),
    }.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return source


@dataclass(frozen=True)
class World:
    """A good mirror, and a node that has the snapshot and makes torrents of it."""

    nodes: Nodes
    good: str

    def torrent(self, webseed: str) -> Path:
        """A torrent without trackers that names one mirror."""
        path = self.nodes.root / f"{webseed.rpartition(':')[2]}.torrent"
        self.nodes.ok("maker", "torrent", "create", REPO, "-o", path, "--endpoint", webseed)
        return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[World]:
    with ExitStack() as stack:
        nodes = Nodes(tmp_path_factory.mktemp("world"), stack)
        good, _ = nodes.hub(model)
        nodes.ok("maker", "fetch", REPO, "--endpoint", good)
        yield World(nodes, good)


def start(nodes: Nodes, way: str, torrent: Path, *mirrors: str, **env: str) -> Running:
    """One of WAYS, with `mirrors` in that order, by a node without a record of them."""
    options = ["--json", "--progress", "json", *(option for url in mirrors for option in ("--endpoint", url))]
    if way == "seed":
        return nodes.start(node(way, *mirrors), "seed", REPO, "--once", *options, **env)
    target = REPO if way == "fetch" else torrent
    return nodes.start(node(way, *mirrors), "fetch", target, *options, **{"P2PMODEL_SWARM_PEER_TIMEOUT": "0.2", **env})


def node(way: str, *mirrors: str) -> str:
    return f"{way}-{len(mirrors)}"


def folder(nodes: Nodes, way: str, *mirrors: str) -> Path:
    return nodes.cache(node(way, *mirrors)) / "models--org--model"


def check_complete(snapshot: Path, model: Path) -> None:
    found = {name: (snapshot / name).read_bytes() for name in etags_of(snapshot)}
    assert found == {name: (model / name).read_bytes() for name in etags_of(model)}


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_bytes_are_never_published_and_a_good_mirror_finishes(
    nodes: Nodes, world: World, model: Path, fault: str
):
    kind, file = FAULTS[fault]
    corrupt, _ = nodes.hub(model, f"{kind}@{file}")
    torrent = world.torrent(corrupt)
    accusation = f"mirror {corrupt.removeprefix('http://')} sent wrong bytes for {file}"
    etags = etags_of(model)
    alone = {way: start(nodes, way, torrent, corrupt) for way in WAYS}
    for way, running in alone.items():
        done = running.wait()
        assert done.code == 5, (way, done.err)
        assert done.out == ""
        (line,) = [line for line in done.err.splitlines() if line.startswith("p2pmodel: ")]
        assert accusation in line, way
        assert f"expected {'sha256' if file == WEIGHTS else 'git blob id'} {etags[file]}" in line, way
        cache = folder(nodes, way, corrupt)
        assert etags[file] not in blobs(cache, etags), way
        assert not list(cache.glob("snapshots/*")), way
        assert not list(cache.glob("refs/*")), way
    both = {way: start(nodes, way, torrent, corrupt, world.good) for way in WAYS}
    for way, running in both.items():
        done = running.wait()
        assert done.code == 0, (way, done.err)
        assert accusation in done.err, way
        assert blobs(folder(nodes, way, corrupt, world.good), etags) == set(etags.values()), way
        check_complete(Path(done.json["path"]), model)


def blobs(cache: Path, etags: dict[str, str]) -> set[str]:
    """The names of the blobs that are there; the content of each matches its name."""
    watch = CacheWatch(cache, etags)
    with watch:
        pass
    return watch.blobs


def test_a_mirror_that_is_down_for_ten_seconds_delays_the_job(nodes: Nodes, world: World, model: Path):
    hubs = {way: nodes.hub(model, "503:10+600000")[0] for way in WAYS}
    torrent = world.torrent(hubs["swarm"])
    began = time.monotonic()
    runs = {way: start(nodes, way, torrent, hub, P2PMODEL_ORIGIN_PART_SIZE="262144") for way, hub in hubs.items()}
    for way, running in runs.items():
        done = running.wait()
        assert done.code == 0, (way, done.err)
        assert "HTTP 503" in done.err, way
        check_complete(Path(done.json["path"]), model)
        assert time.monotonic() - began > 10, way


def test_presigned_redirects_that_expire_delay_the_job(nodes: Nodes, world: World, model: Path):
    hubs = {way: nodes.hub(model, "expire:0.3", "slow:600000") for way in WAYS}
    torrent = world.torrent(hubs["swarm"][0])
    runs = {way: start(nodes, way, torrent, hub, P2PMODEL_ORIGIN_PART_SIZE="131072") for way, (hub, _) in hubs.items()}
    for way, running in runs.items():
        done = running.wait()
        assert done.code == 0, (way, done.err)
        check_complete(Path(done.json["path"]), model)
        answers = [(entry["status"], "/presigned/" in entry["path"]) for entry in served(hubs[way][1])]
        assert (403, True) in answers, way
        assert answers.count((302, False)) > sum(path.stat().st_size > 0 for path in model.rglob("*.*")), way
