"""Every kind of Qwen3-VL, and checkpoints of other families, each loaded by its concrete class."""

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from p2pmodel.errors import P2PModelError
from p2pmodel.loading.model import load
from scripts.demonstration.tiny_qwen3_vl import build
from tests.support.tiny_models import copy_of, in_fp8

SIZES = {"vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
TEXT = {**SIZES, **HEADS, "max_position_embeddings": 64}
OTHERS: dict[str, Any] = {
    "GPT2LMHeadModel": transformers.GPT2Config(vocab_size=512, n_embd=32, n_layer=2, n_head=2, n_positions=64),
    "MistralForCausalLM": transformers.MistralConfig(**TEXT),
    "MixtralForCausalLM": transformers.MixtralConfig(**TEXT, num_local_experts=4, num_experts_per_tok=2),
    "Qwen3MoeForCausalLM": transformers.Qwen3MoeConfig(
        **TEXT, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24
    ),
    "Gemma3ForCausalLM": transformers.Gemma3TextConfig(**TEXT),
    "Phi3ForCausalLM": transformers.Phi3Config(**{**TEXT, "pad_token_id": 0}),
    "T5ForConditionalGeneration": transformers.T5Config(
        vocab_size=512, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2
    ),
    "BertForMaskedLM": transformers.BertConfig(**SIZES, num_attention_heads=2, max_position_embeddings=64),
}


def assert_loads_as_plainly(snapshot: Path, name: str, **options: Any) -> None:
    """Loading gives the concrete class, and every tensor as `from_pretrained` of that class gives it."""
    plain = getattr(transformers, name).from_pretrained(snapshot, dtype="auto", **options)
    loaded = load(snapshot, device="cpu")
    assert loaded.architecture == name
    expected, got = plain.state_dict(), loaded.model.state_dict()
    assert got.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(got[key], tensor), key


@pytest.mark.parametrize("fp8", [False, True], ids=["bf16", "fp8"])
@pytest.mark.parametrize("thinking", [False, True], ids=["instruct", "thinking"])
@pytest.mark.parametrize("moe", [False, True], ids=["dense", "moe"])
def test_every_kind_of_qwen3_vl(tmp_path: Path, moe: bool, thinking: bool, fp8: bool) -> None:
    snapshot = build(tmp_path / "plain", moe=moe, thinking=thinking)
    name = f"Qwen3VL{'Moe' if moe else ''}ForConditionalGeneration"
    if not fp8:
        assert_loads_as_plainly(snapshot, name)
        return
    quantized = load(in_fp8(snapshot, tmp_path / "fp8"), device="cpu")
    assert quantized.architecture == name
    original = load(snapshot, device="cpu").model.state_dict()
    for key, tensor in quantized.model.state_dict().items():
        reference = original[key].float()
        error = (tensor.float() - reference).abs().max()
        assert error <= reference.abs().max() / 14, f"{key}: more than FP8 rounds"


@pytest.mark.parametrize("name", OTHERS)
def test_other_families(tmp_path: Path, text_only: Path, name: str) -> None:
    torch.manual_seed(0)
    model = getattr(transformers, name)(OTHERS[name])
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    model.to(torch.bfloat16).save_pretrained(tmp_path, max_shard_size="40kB")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(text_only / file, tmp_path / file)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [name]
    assert_loads_as_plainly(tmp_path, name)


@pytest.mark.parametrize(
    ("package", "quantization"),
    [
        ("gptqmodel", {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}),
        ("optimum", {"quant_method": "gptq", "bits": 4, "group_size": 128}),
        ("bitsandbytes", {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}),
        ("compressed-tensors", {"quant_method": "compressed-tensors", "format": "pack-quantized"}),
        ("torchao", {"quant_method": "torchao", "quant_type": "int8_weight_only"}),
    ],
)
def test_a_quantization_that_needs_a_package_names_it(
    tmp_path: Path, text_only: Path, package: str, quantization: dict[str, Any]
) -> None:
    if importlib.util.find_spec(package.replace("-", "_")):
        pytest.skip(f"{package} is installed")
    snapshot = copy_of(text_only, tmp_path / "quantized")
    config = json.loads((snapshot / "config.json").read_text()) | {"quantization_config": quantization}
    (snapshot / "config.json").write_text(json.dumps(config))
    with pytest.raises(P2PModelError) as refused:
        load(snapshot, device="cpu")
    assert package in str(refused.value).lower()
    assert "\n" not in str(refused.value)
