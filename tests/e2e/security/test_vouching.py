"""A manifest is vouched for or not used: hostile seeders against a node with a mirror, and with none."""

from pathlib import Path

import pytest

from tests.support.processes import Nodes

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
        done = nodes.fetch("victim", target, "--endpoint", hub, **MIRRORS).wait()
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
