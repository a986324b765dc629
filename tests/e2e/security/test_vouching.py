"""A manifest is vouched for or not used: hostile seeders against a node with a mirror, and with none."""

import json
import urllib.request
from pathlib import Path

import pytest

from p2pmodel.swarm.torrents import build, layout_of
from tests.support.hub_snapshot import snapshot_of
from tests.support.processes import PATIENCE, Nodes, eventually
from tests.support.torrent_files import trees_of

REPO = "org/model"
COMMIT = "c0" * 20
INVENTED = "ee" * 20
CLOSED = "http://127.0.0.9:9"
MIRRORS = {"P2PMODEL_SWARM_TRUST": "mirrors", "P2PMODEL_SWARM_FOREIGN_TRACKERS": "public"}
"""The defaults, which the harness replaces."""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return folder(tmp_path / "good", b"good")


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    return folder(tmp_path / "evil", b"evil")


def folder(path: Path, word: bytes) -> Path:
    path.mkdir()
    (path / "config.json").write_bytes(b"{}")
    (path / "model.safetensors").write_bytes(word * 100_000)
    return path


def same(folder: Path, snapshot: str) -> bool:
    return all((Path(snapshot) / p.name).read_bytes() == p.read_bytes() for p in folder.iterdir())


def evil_seeder(nodes: Nodes, evil: Path, commit: str, *options: str) -> str:
    """The coordinator of a seeder of invented files under a name that victims fetch."""
    ready = nodes.seed(evil, "--as", f"{REPO}@{commit}", *options, P2PMODEL_ENDPOINTS=CLOSED).ready()
    return str(ready["coordinator"])


@pytest.mark.parametrize("wanted", [f"{REPO}@{COMMIT}", REPO])
def test_invented_files_under_a_real_commit(nodes: Nodes, good: Path, evil: Path, wanted: str) -> None:
    hub, _ = nodes.hub(good, options=["--commit", COMMIT])
    coordinator = evil_seeder(nodes, evil, COMMIT)
    done = nodes.fetch("victim", wanted, "--endpoint", hub, "--coordinator", coordinator, **MIRRORS).wait()
    assert done.code == 0, done.err
    assert same(good, done.json["path"])
    assert (done.json["commit"], done.json["vouched_by"]) == (COMMIT, f"mirror {hub.partition('//')[2]}")
    verified = nodes.ok("victim", "verify", f"{REPO}@{COMMIT}", "--json", **MIRRORS)
    assert verified.json["vouched_by"] == done.json["vouched_by"]


def test_the_same_files_in_a_torrent_and_a_magnet(nodes: Nodes, good: Path, evil: Path, tmp_path: Path) -> None:
    hub, _ = nodes.hub(good, options=["--commit", COMMIT])
    torrent = tmp_path / "m.torrent"
    coordinator = evil_seeder(nodes, evil, COMMIT, "-o", str(torrent))
    shown = nodes.ok("seeder", "torrent", "show", torrent, "--json").json
    url = f"{coordinator}/catalog/torrents/{shown['info_hash']}.torrent"
    for target in (str(torrent), url, f"{shown['magnet']}&xs={url}"):
        near = {"P2PMODEL_ORIGIN_ALLOWED_NETWORKS": "127.0.0.0/8"}
        done = nodes.fetch("victim", target, "--endpoint", hub, **MIRRORS, **near).wait()
        assert done.code == 5, done.err
        assert "lists other files for org/model@" in done.err
    assert not list(nodes.cache("victim").glob("models--*/snapshots/*"))


def test_without_a_mirror_nothing_is_used(nodes: Nodes, evil: Path) -> None:
    coordinator = evil_seeder(nodes, evil, COMMIT)
    options = ("--endpoint", CLOSED, "--coordinator", coordinator)
    for env in (MIRRORS, {**MIRRORS, "HF_HUB_OFFLINE": "1"}):
        done = nodes.fetch("victim", f"{REPO}@{COMMIT}", *options, **env).wait()
        assert done.code == 6
        lines = [line for line in done.err.splitlines() if not line.startswith("{")]
        assert "P2PMODEL_SWARM_TRUST" in lines[-1]
    done = nodes.fetch("victim", f"{REPO}@{COMMIT}", *options).wait()
    assert done.code == 0, done.err
    assert done.json["vouched_by"] == "coordinator"


def test_a_seeder_refuses_files_that_are_not_those_of_the_commit(nodes: Nodes, good: Path, evil: Path) -> None:
    hub, _ = nodes.hub(good, options=["--commit", COMMIT])
    done = nodes.seed(evil, "--as", f"{REPO}@{COMMIT}", "--endpoint", hub, **MIRRORS).wait()
    assert done.code == 5
    assert "lists other files" in done.err
    assert not list(nodes.cache("seeder").glob("models--*/snapshots/*"))
    assert nodes.seed(good, "--as", f"{REPO}@{COMMIT}", "--endpoint", hub, **MIRRORS).ready()["commit"] == COMMIT


def test_invented_piece_hashes_stop_no_fetch_and_blame_no_mirror(nodes: Nodes, good: Path, evil: Path) -> None:
    """The right files, and the piece hashes of other ones, published before the honest seeder comes."""
    hub, _ = nodes.hub(good, options=["--commit", COMMIT])
    tokens = {name: nodes.root / f"{name}.token" for name in ("eve", "alice")}
    for name, path in tokens.items():
        path.write_text(f"publish-token-of-{name}-0123456789")
        path.chmod(0o600)
    publishers = [arg for path in tokens.values() for arg in ("--publish-token-file", str(path))]
    running = nodes.start("coordinator", "coordinator", "--listen", "127.0.0.46:0", *publishers, "--json", "-q")
    coordinator = str(running.ready()["url"])
    manifest = snapshot_of({path.name: path.read_bytes() for path in good.iterdir()}, commit=COMMIT).manifest
    other = {path.name: path.read_bytes() for path in evil.iterdir()}
    invented = build(manifest, trees_of(other, layout_of(manifest).piece_length))
    request = urllib.request.Request(f"{coordinator}/catalog?revision=main", data=invented, method="PUT")
    request.add_header("Authorization", f"Bearer {tokens['eve'].read_text()}")
    request.add_header("Content-Type", "application/x-bittorrent")
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        assert answer.status == 201
    options = ("--endpoint", hub, "--coordinator", coordinator)
    done = nodes.fetch("victim", REPO, *options, **MIRRORS).wait()
    assert done.code == 0, done.err
    assert same(good, done.json["path"])
    assert "the torrent is dropped" in done.err
    assert '"event": "mirror_refused"' not in done.err

    seeder = nodes.seed(f"{REPO}@{COMMIT}", *options, **MIRRORS, P2PMODEL_PUBLISH_TOKEN_FILE=str(tokens["alice"]))
    seeder.ready()
    eventually(lambda: len(torrents(coordinator)) == 2, PATIENCE, lambda: "".join(seeder.err))
    late = nodes.fetch("late", REPO, *options, address="127.0.0.12", **MIRRORS).wait()
    assert late.code == 0, late.err
    assert "no coordinator has" not in late.err
    assert "the torrent is dropped" not in late.err  # the victim's report put it behind the honest one


def torrents(coordinator: str) -> list[str]:
    with urllib.request.urlopen(f"{coordinator}/catalog", timeout=PATIENCE) as answer:
        return [each["info_hash"] for each in json.load(answer)["torrents"]]
