"""Session fixtures: tiny Qwen3-VL snapshots, built once, and test images. A conftest.py imports those it offers.

Tests must not write into the snapshots; `copy_of` makes a copy that may be broken.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from scripts.demonstration.tiny_qwen3_vl import build, make_image

WRONG_INDEXES = {
    b'{"weight_map": [1, 2]}': "is not an index",
    b"[]": "is not an index",
    b"[" * 100_000: "is not an index",
    b'{"weight_map": {}}': "names no weight file",
    b'{"weight_map": {"a": "config.json"}}': r"names config\.json, which is not a safetensors file",
}
"""Indexes that are none, and what is said of them."""


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


def in_fp8(snapshot: Path, target: Path, block: int = 8) -> Path:
    """A copy with FP8 projections and fused experts, one scale for each `block` x `block` values, as Qwen's *-FP8."""
    copy_of(snapshot, target)
    places: dict[str, str] = {}
    for shard in sorted(target.glob("*.safetensors")):
        tensors = load_file(shard)
        for name, tensor in list(tensors.items()):
            projection = name.endswith("proj.weight") and "visual" not in name
            if projection or (".experts." in name and tensor.ndim == 3):
                tensors[name], tensors[f"{name}_scale_inv"] = _in_fp8(tensor, block)
        save_file(tensors, shard, metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, shard.name)
    (target / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    config = json.loads((target / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [block, block],
        "modules_to_not_convert": ["lm_head", "model.visual"],
    }
    (target / "config.json").write_text(json.dumps(config))
    return target


def _in_fp8(weight: torch.Tensor, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    if weight.ndim == 2:
        quantized, scale = _in_fp8(weight[None], block)
        return quantized[0], scale[0]
    experts, rows, columns = weight.shape
    down, across = -(-rows // block), -(-columns // block)
    padded = torch.zeros(experts, down * block, across * block)
    padded[:, :rows, :columns] = weight.float()
    blocks = padded.view(experts, down, block, across, block)
    scale = (blocks.abs().amax(dim=(2, 4)) / 448).clamp(min=1e-12).to(torch.bfloat16)
    quantized = (blocks / scale.float()[:, :, None, :, None]).view(experts, down * block, across * block)
    return quantized[:, :rows, :columns].contiguous().to(torch.float8_e4m3fn), scale


@pytest.fixture(scope="session")
def untied(tmp_path_factory: pytest.TempPathFactory, dense: Path) -> Path:
    """The dense Qwen3-VL with an output layer of its own."""
    out = copy_of(dense, tmp_path_factory.mktemp("untied") / "model")
    config = json.loads((out / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
    (out / "config.json").write_text(json.dumps(config))
    index = json.loads((out / "model.safetensors.index.json").read_text())
    shard = max(index["weight_map"].values())
    tensors = load_file(out / shard)
    embedding = load_file(out / index["weight_map"]["model.language_model.embed_tokens.weight"])
    tensors["lm_head.weight"] = -embedding["model.language_model.embed_tokens.weight"]
    save_file(tensors, out / shard, metadata={"format": "pt"})
    index["weight_map"]["lm_head.weight"] = shard
    (out / "model.safetensors.index.json").write_text(json.dumps(index))
    return out


_SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 16, "vocab_size": 512}
_HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1}


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory, text_only: Path) -> Path:
    config = transformers.LlamaConfig(**_SIZES, **_HEADS)
    return _text_model(tmp_path_factory.mktemp("llama"), text_only, transformers.LlamaForCausalLM(config))


@pytest.fixture(scope="session")
def gemma(tmp_path_factory: pytest.TempPathFactory, text_only: Path) -> Path:
    config = transformers.Gemma2Config(**_SIZES, **_HEADS)
    return _text_model(tmp_path_factory.mktemp("gemma"), text_only, transformers.Gemma2ForCausalLM(config))


@pytest.fixture(scope="session")
def fp8_dense(tmp_path_factory: pytest.TempPathFactory, dense: Path) -> Path:
    return in_fp8(dense, tmp_path_factory.mktemp("fp8") / "dense")


@pytest.fixture(scope="session")
def fp8_moe(tmp_path_factory: pytest.TempPathFactory, moe: Path) -> Path:
    return in_fp8(moe, tmp_path_factory.mktemp("fp8") / "moe")


def _text_model(out: Path, tokenizer: Path, model: transformers.PreTrainedModel) -> Path:
    """Random weights in several shards, with the tokenizer of another snapshot."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    model.to(torch.bfloat16).save_pretrained(out, max_shard_size="20kB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, out / name)
    return out
