"""Session fixtures: tiny Qwen3-VL snapshots, built once, and test images. A conftest.py imports those it offers.

Tests must not write into the snapshots; `copy_of` makes a copy that may be broken.
"""

import shutil
from pathlib import Path

import pytest
import torch
import transformers

from scripts.demonstration.tiny_qwen3_vl import build, make_image


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("dense"))


@pytest.fixture(scope="session")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("moe"), moe=True)


@pytest.fixture(scope="session")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("thinking"), thinking=True)


@pytest.fixture(scope="session")
def text_only(tmp_path_factory: pytest.TempPathFactory, dense: Path) -> Path:
    """A Qwen3 without vision, one weight file, and the tokenizer of `dense` with its chat template."""
    out = tmp_path_factory.mktemp("text")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(dense / name, out / name)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = transformers.Qwen3Config(vocab_size=512, max_position_embeddings=512, **sizes, **heads)
    torch.manual_seed(0)
    transformers.Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(out)
    return out


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    return [make_image(folder / f"{seed}.png", seed=seed) for seed in range(3)]


def copy_of(snapshot: Path, target: Path) -> Path:
    shutil.copytree(snapshot, target)
    return target
