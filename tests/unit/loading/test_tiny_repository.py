"""The fixture itself: the other tests depend on it having the layout of the real repositories."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from scripts.demonstration.tiny_qwen3_vl import build, make_image
from tests.support.eventually import PATIENCE

SCRIPT = Path(__file__).parents[3] / "scripts/demonstration/tiny_qwen3_vl.py"
FILES = {
    *("README.md", "chat_template.json", "config.json", "generation_config.json", "merges.txt"),
    *("model.safetensors.index.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("video_preprocessor_config.json", "vocab.json"),
    *(f"model-0000{n}-of-00005.safetensors" for n in range(1, 6)),
}


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.slow
def test_another_process_builds_the_same_bytes(tmp_path: Path) -> None:
    here = build(tmp_path / "here", moe=True, thinking=True, pad_mb=2, seed=3)
    there = tmp_path / "there"
    command = [sys.executable, str(SCRIPT), str(there), "--moe", "--thinking", "--pad-mb", "2", "--seed", "3"]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
        check=True,
    )
    assert done.stdout == f"{there}\n"
    assert digests(there) == digests(here)


def test_the_files_of_the_real_repositories(dense: Path, moe: Path, thinking: Path) -> None:
    for snapshot in (dense, moe, thinking):
        assert {path.name for path in snapshot.iterdir()} == FILES
        assert {path.stat().st_mode & 0o777 for path in snapshot.iterdir()} == {0o644}


def test_the_seed_changes_the_weights_alone(dense: Path, tmp_path: Path) -> None:
    other = digests(build(tmp_path, seed=1))
    changed = {name for name, digest in digests(dense).items() if other[name] != digest}
    assert changed == {name for name in FILES if name.startswith("model-")}


def test_thinking_changes_the_template_alone(dense: Path, thinking: Path) -> None:
    other = digests(thinking)
    changed = {name for name, digest in digests(dense).items() if other[name] != digest}
    assert changed == {"README.md", "chat_template.json", "tokenizer_config.json"}


def test_experts_lie_as_on_the_hub(moe: Path) -> None:
    tensors = {name: tensor for path in moe.glob("model-*") for name, tensor in load_file(path).items()}
    experts = {name: tuple(tensor.shape) for name, tensor in tensors.items() if ".experts." in name}
    layer = "model.language_model.layers.0.mlp.experts."
    assert len(experts) == 8
    assert experts[f"{layer}gate_up_proj"] == (4, 64, 48)
    assert experts[f"{layer}down_proj"] == (4, 24, 64)


def test_padding_is_valid_unindexed_and_of_the_requested_size(tmp_path: Path) -> None:
    build(tmp_path, pad_mb=3)
    padding = tmp_path / "data-00001.safetensors"
    assert 0 <= padding.stat().st_size - 3 * 2**20 < 200
    with safe_open(padding, framework="numpy") as file:
        assert file.get_slice("padding").get_shape() == [3 * 2**20]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert padding.name not in index["weight_map"].values()


def test_images_follow_from_their_seed(tmp_path: Path) -> None:
    first, again, other = (make_image(tmp_path / f"{n}.png", seed=seed) for n, seed in enumerate((1, 1, 2)))
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()
