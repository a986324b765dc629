"""The main job in real processes: mirror, seeder, peers; every kind of target; stopping and resuming."""

import os
import random
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.processes import P2PMODEL, PATIENCE, Nodes, environment, served

pytestmark = pytest.mark.main

REPO = "org/model"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A repository with everything that is awkward: empty, nested, spaced and non-ASCII names, equal contents."""
    source = tmp_path / "source"
    contents = {
        "config.json": b'{"model_type": "none"}',
        "weights-00001.safetensors": random.Random(1).randbytes(3_000_000),
        "weights-00002.safetensors": random.Random(2).randbytes(700_001),
        "same-as-first.safetensors": random.Random(1).randbytes(3_000_000),
        "empty.txt": b"",
        "also-empty.txt": b"",
        "nested/deep/er/file.txt": b"nested",
        "with space.txt": b"space",
        "名前/ü.txt": b"non-ascii",
    }
    for name, content in contents.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return source


@pytest.fixture
def mirror(nodes: Nodes, model: Path) -> tuple[str, Path]:
    nodes.ok("mirror", "import", model, REPO)
    return nodes.mirror()


def assert_same(model: Path, snapshot: Path) -> None:
    there = {p.relative_to(model) for p in model.rglob("*") if p.is_file()}
    here = {p.relative_to(snapshot) for p in snapshot.rglob("*") if p.is_file()}
    assert there == here
    for name in there:
        assert (model / name).read_bytes() == (snapshot / name).read_bytes(), name


def test_peers_get_everything_from_the_swarm_and_the_mirror_is_read_once(nodes: Nodes, model: Path, mirror):
    endpoint, log = mirror
    ready = nodes.seed(REPO, "--endpoint", endpoint).ready()
    once = sum(entry["bytes"] for entry in served(log))
    fetches = [
        nodes.fetch(
            f"peer{n}", REPO, "--endpoint", endpoint, "--coordinator", ready["coordinator"], address=f"127.0.0.1{n}"
        )
        for n in (1, 2)
    ]
    for fetch in fetches:
        done = fetch.wait()
        assert done.code == 0, done.err
        assert_same(model, Path(done.json["path"]))
        assert done.json["from_peers"] == ready["size"]
    assert sum(entry["bytes"] for entry in served(log)) == once
    assert once < 1.1 * ready["size"] + 100_000


def test_every_kind_of_target_leads_to_the_same_snapshot(nodes: Nodes, model: Path, mirror, tmp_path: Path):
    endpoint, _ = mirror
    torrent = tmp_path / "m.torrent"
    ready = nodes.seed(REPO, "--endpoint", endpoint, "-o", torrent).ready()
    catalog = f"{ready['coordinator']}/catalog/torrents/{ready['info_hash']}.torrent"
    without_source = "&".join(part for part in ready["magnet"].split("&") if not part.startswith("xs="))
    targets = [f"hf://{REPO}@main", f"{REPO}@{ready['commit']}", torrent, catalog, ready["magnet"], without_source]
    for number, target in enumerate(targets):
        done = nodes.fetch(f"peer{number}", target, "--coordinator", ready["coordinator"]).wait()
        assert done.code == 0, (target, done.err)
        assert_same(model, Path(done.json["path"]))


def test_a_bare_magnet_is_filled_by_a_peer(nodes: Nodes, model: Path):
    (model / "same-as-first.safetensors").unlink()
    ready = nodes.seed(model, "--as", REPO).ready()
    bare = f"magnet:?xt=urn:btmh:1220{ready['info_hash']}"
    done = nodes.fetch("peer", bare, "--peer", ready["peer"]).wait()
    assert done.code == 0, done.err
    assert_same(model, Path(done.json["path"]))


def test_a_bare_magnet_of_twin_files_explains_why_it_cannot_work(nodes: Nodes, model: Path):
    ready = nodes.seed(model, "--as", REPO).ready()
    bare = f"magnet:?xt=urn:btmh:1220{ready['info_hash']}"
    done = nodes.fetch("peer", bare, "--peer", ready["peer"]).wait()
    assert done.code == 6
    assert "two of its large files have the same content" in done.err


def test_without_a_coordinator_only_mirrors_are_used_and_a_note_reports_it(nodes: Nodes, model: Path, mirror):
    endpoint, _ = mirror
    done = nodes.fetch("peer", REPO, "--endpoint", endpoint, "--coordinator", "http://127.0.0.9:9").wait()
    assert done.code == 0, done.err
    assert "mirrors alone" in done.err
    assert_same(model, Path(done.json["path"]))


def test_a_torrent_without_peers_is_filled_from_its_webseeds(nodes: Nodes, model: Path, mirror, tmp_path: Path):
    endpoint, _ = mirror
    torrent = tmp_path / "m.torrent"
    nodes.ok("seeder", "seed", REPO, "--endpoint", endpoint, "--once", "-o", torrent)
    env = {"P2PMODEL_SWARM_PEER_TIMEOUT": "0.5", "P2PMODEL_ENDPOINTS": "http://127.0.0.9:9"}
    refused = nodes.fetch("peer", torrent, **env, P2PMODEL_SWARM_STALL_TIMEOUT="2", P2PMODEL_ORIGIN_PATIENCE="1").wait()
    assert refused.code == 6
    assert "a loopback address (see the setting origin.allowed_networks)" in refused.err
    done = nodes.fetch("peer", torrent, **env, P2PMODEL_ORIGIN_ALLOWED_NETWORKS="127.0.0.0/8").wait()
    assert done.code == 0, done.err
    assert done.json["from_mirrors"] == done.json["size"]
    assert_same(model, Path(done.json["path"]))


def test_a_second_fetch_downloads_no_bytes(nodes: Nodes, mirror):
    endpoint, log = mirror
    first = nodes.fetch("peer", REPO, "--endpoint", endpoint).wait().json
    before = len(served(log))
    pinned = nodes.fetch("peer", f"{REPO}@{first['commit']}", "--endpoint", endpoint).wait()
    assert pinned.json["from_cache"] == first["size"]
    assert len(served(log)) == before
    offline = nodes.fetch("peer", REPO, HF_HUB_OFFLINE="1").wait()
    assert offline.json["path"] == first["path"]


def test_parts_of_a_snapshot(nodes: Nodes, mirror):
    endpoint, _ = mirror
    ready = nodes.seed(REPO, "--endpoint", endpoint).ready()
    chosen = ("--include", "*.txt", "--include", "config.json", "--exclude", "nested/")
    for number, coordinator in enumerate((ready["coordinator"], "http://127.0.0.9:9")):
        options = ("--endpoint", endpoint, "--coordinator", coordinator)
        done = nodes.fetch(f"peer{number}", REPO, *chosen, *options).wait()
        assert done.code == 0, done.err
        path = Path(done.json["path"])
        found = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
        assert found == {"config.json", "empty.txt", "also-empty.txt", "with space.txt", "名前/ü.txt"}
        assert nodes.fetch(f"peer{number}", REPO, *options).wait().json["size"] == ready["size"]


def test_a_directory_is_seeded_under_a_name(nodes: Nodes, model: Path):
    ready = nodes.seed(model, "--as", REPO).ready()
    done = nodes.fetch(
        "peer", REPO, "--coordinator", ready["coordinator"], P2PMODEL_ENDPOINTS="http://127.0.0.9:9"
    ).wait()
    assert done.code == 0, done.err
    assert_same(model, Path(done.json["path"]))


def test_the_path_goes_to_stdout_although_the_terminal_shows_a_progress_bar(nodes: Nodes, model: Path):
    nodes.ok("peer", "import", model, REPO)
    terminal, slave = os.openpty()
    done = subprocess.run(
        [*P2PMODEL, "fetch", REPO],
        env=environment(nodes.cache("peer"), HF_HUB_OFFLINE="1", TERM="xterm"),
        stdout=subprocess.PIPE,
        stderr=slave,
        timeout=PATIENCE,
        check=True,
        text=True,
    )
    os.close(slave)
    parts = []
    with suppress(OSError):  # EIO at the end
        while part := os.read(terminal, 1 << 16):
            parts.append(part)
    os.close(terminal)
    shown = b"".join(parts).decode()
    assert_same(model, Path(done.stdout.strip()))
    assert "100%" in shown
    assert done.stdout.strip() not in shown
