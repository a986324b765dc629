"""The tree ids of directories are those of git."""

import subprocess
from pathlib import Path

import pytest

from p2pmodel.core.content.hub_json import refs, tree_oids
from tests.support.hub_layout import manifest_file

# A directory sorts among files as if its name ended in a slash: 'a.txt' < 'a/' < 'a0'.
FILES = {"a.txt": b"1", "a/x": b"2", "a/b/y": b"3", "a0": b"4", "d\u00e9j\u00e0/z": b"5"}


@pytest.mark.needs("git")
def test_tree_ids_are_those_of_git(tmp_path: Path) -> None:
    def git(*args: str) -> str:
        done = subprocess.run(["git", "-C", str(tmp_path), *args], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    for path, content in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    git("init", "-q")
    git("add", ".")
    root = git("write-tree")
    oids = tree_oids([manifest_file(path, content) for path, content in FILES.items()])
    assert oids.pop("") == root
    assert oids == {d: git("rev-parse", f"{root}:{d}") for d in ("a", "a/b", "d\u00e9j\u00e0")}


def test_an_empty_snapshot_has_an_empty_root() -> None:
    assert tree_oids([]) == {"": "4b825dc642cb6eb9a060e54bf8d69288fbee4904"}


def test_refs_of_every_kind() -> None:
    held = {"main": "1" * 40, "feature/x": "2" * 40, "refs/pr/12": "3" * 40, "refs/convert/parquet": "4" * 40}
    body = refs(held)
    named = {kind: [(r["name"], r["ref"]) for r in found] for kind, found in body.items()}
    assert named == {
        "branches": [("feature/x", "refs/heads/feature/x"), ("main", "refs/heads/main")],
        "converts": [("parquet", "refs/convert/parquet")],
        "tags": [],
        "pullRequests": [("12", "refs/pr/12")],
    }
