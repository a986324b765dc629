"""The files that the hub stores in LFS."""

import shutil
import subprocess
from pathlib import Path

import pytest

from p2pmodel.store.imports.importer import HUB_PATTERNS, MAX_GIT_SIZE, is_lfs, lfs_patterns

ATTRIBUTES = """
# a comment filter=lfs
*.safetensors filter=lfs diff=lfs merge=lfs -text
tokenizer.json filter=lfs diff=lfs merge=lfs -text
saved_model/**/* filter=lfs diff=lfs merge=lfs -text
/top.dat filter=lfs
images/*.png filter=lfs
*.txt text
   *.odd   filter=lfs

alone
"""
PATHS = [
    "model.safetensors", "sub/model.safetensors", "tokenizer.json", "sub/tokenizer.json", "tokenizer.json.bak",
    "saved_model/a", "saved_model/a/b/c", "x/saved_model/a", "top.dat", "sub/top.dat", "images/a.png", "images.png",
    "a.txt", "b.odd", "alone", "model.safetensors.index.json", "café.safetensors", "with space.safetensors",
]  # fmt: skip


def test_patterns_are_those_with_the_filter() -> None:
    expected = ("*.safetensors", "tokenizer.json", "saved_model/**/*", "/top.dat", "images/*.png", "*.odd")
    assert lfs_patterns(ATTRIBUTES) == expected
    assert lfs_patterns("") == ()


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_patterns_match_as_in_git(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitattributes").write_text(ATTRIBUTES)
    answer = subprocess.run(
        ["git", "-C", str(tmp_path), "check-attr", "-z", "filter", "--", *PATHS], capture_output=True, check=True
    ).stdout.decode()
    fields = answer.split("\0")
    git = {fields[i]: fields[i + 2] == "lfs" for i in range(0, len(fields) - 1, 3)}
    assert {path: is_lfs(path, 1, lfs_patterns(ATTRIBUTES)) for path in PATHS} == git


@pytest.mark.parametrize(
    ("path", "size", "expected"),
    [
        ("model-00001-of-00002.safetensors", 1, True),
        ("onnx/model.onnx", 1, True),
        ("model.gguf", 0, True),
        ("spiece.model", 1, True),
        ("assets/logo.png", 1, True),
        ("runs/events.out.tfevents.1", 1, True),
        ("saved_model/variables/x", 1, True),
        ("config.json", 1, False),
        ("model.safetensors.index.json", 1, False),
        ("vocab.json", 2_776_833, False),
        ("tokenizer.json", MAX_GIT_SIZE, False),
        ("tokenizer.json", MAX_GIT_SIZE + 1, True),
        ("README.md", 1, False),
        (".gitattributes", 1, False),
    ],
)
def test_the_hubs_own_rules(path: str, size: int, expected: bool) -> None:
    assert is_lfs(path, size, HUB_PATTERNS) is expected
