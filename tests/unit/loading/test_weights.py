"""FP8 experts are never loaded without their scales, tensors that the model does not use are an error, and each kind of
repository that cannot be loaded has a line of its own."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from p2pmodel.errors import EntryNotFound, IntegrityError, InvalidInput, P2PModelError
from p2pmodel.loading import model as module
from p2pmodel.loading.formats import check_loadable, missing_shards
from p2pmodel.loading.model import load
from p2pmodel.loading.weights import _scaled
from tests.support.tiny_models import copy_of, in_fp8

FP8_ROUNDING = 1 / 16
"""Relative: three bits of mantissa, and the scale in bfloat16."""


@pytest.mark.parametrize("block", [8, 16])
def test_fp8_experts_have_their_scales(moe: Path, tmp_path: Path, block: int) -> None:
    original = load(moe, device="cpu").model
    quantized = load(in_fp8(moe, tmp_path / "fp8", block), device="cpu").model
    compared = 0
    for name, expected in original.named_parameters():
        got = quantized.get_parameter(name)
        compared += ".experts." in name
        difference = (got.float() - expected.float()).abs().max()
        assert difference <= FP8_ROUNDING * expected.float().abs().max(), name
    assert compared


def test_blocks_at_the_edge_may_be_shorter() -> None:
    weight, scale = torch.ones(1, 5, 3), torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
    rows = [[1, 1, 2], [1, 1, 2], [3, 3, 4], [3, 3, 4], [5, 5, 6]]
    assert _scaled(scale, (2, 2), weight).tolist() == [rows]


def test_kept_fp8_experts_fit_with_transposed_scales(
    moe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU with FP8 kernels; the check for one is left out."""
    quantizer = transformers.quantizers.quantizer_finegrained_fp8.FineGrainedFP8HfQuantizer
    monkeypatch.setattr(quantizer, "validate_environment", lambda *_args, **_options: None)
    monkeypatch.setattr(module, "_keeps_fp8", lambda _place: True)
    monkeypatch.setattr(module, "check_fp8_kernel", lambda _config: None)
    original = load(moe, device="cpu").model
    quantized = load(in_fp8(moe, tmp_path / "fp8"), device="cpu").model
    [name] = [each for each, _ in original.named_parameters() if each.endswith("layers.1.mlp.experts.gate_up_proj")]
    weight, scale = quantized.get_parameter(name), quantized.get_parameter(f"{name}_scale_inv")
    assert weight.dtype == torch.float8_e4m3fn
    product, expected = _scaled(scale, (8, 8), weight).float(), original.get_parameter(name).float()
    assert (product - expected).abs().max() <= FP8_ROUNDING * expected.abs().max()


def test_a_tensor_that_the_model_does_not_use_is_an_error(text_only: Path, tmp_path: Path) -> None:
    snapshot = copy_of(text_only, tmp_path / "more")
    tensors = load_file(snapshot / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(8)  # known to be harmless
    save_file(tensors, snapshot / "model.safetensors", metadata={"format": "pt"})
    assert load(snapshot, device="cpu").weight_bytes
    tensors["model.layers.0.mlp.up_proj.weight_scale"] = torch.zeros(1)
    save_file(tensors, snapshot / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(IntegrityError, match=r"something that this model does not use: .*up_proj\.weight_scale"):
        load(snapshot, device="cpu")


def test_a_config_without_a_type_takes_that_of_the_tensors(text_only: Path, tmp_path: Path) -> None:
    snapshot = copy_of(text_only, tmp_path / "no-type")
    config = json.loads((snapshot / "config.json").read_text())
    del config["dtype"]
    (snapshot / "config.json").write_text(json.dumps(config))
    assert load(snapshot, device="cpu").model.dtype == torch.bfloat16


def test_pickles_are_refused_unless_they_are_allowed(text_only: Path, tmp_path: Path) -> None:
    snapshot = copy_of(text_only, tmp_path / "pickle")
    torch.save(load_file(snapshot / "model.safetensors"), snapshot / "pytorch_model.bin")
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(InvalidInput, match=r"as pickle only \(pytorch_model\.bin\).*--allow-pickle"):
        load(snapshot, device="cpu")
    allowed, plain = load(snapshot, device="cpu", allow_pickle=True), load(text_only, device="cpu")
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(allowed.model.state_dict()[name], tensor), name


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return (Path.touch, (self.path,))


def test_an_allowed_pickle_runs_no_code(text_only: Path, tmp_path: Path) -> None:
    snapshot = copy_of(text_only, tmp_path / "evil")
    (snapshot / "model.safetensors").unlink()
    torch.save({"model.embed_tokens.weight": Evil(tmp_path / "ran")}, snapshot / "pytorch_model.bin")
    with pytest.raises(P2PModelError) as caught:
        load(snapshot, device="cpu", allow_pickle=True)
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


CONFIG = {"config.json"}


@pytest.mark.parametrize(
    ("here", "listed", "error", "says"),
    [
        ({"adapter_config.json", "adapter_model.safetensors"}, (), InvalidInput, "is an adapter"),
        ({"model_index.json"}, (), InvalidInput, "diffusers pipeline"),
        ({"model-q4.gguf"}, (), InvalidInput, r"GGUF only; .*llama\.cpp"),
        (CONFIG, {"model-q4.gguf"}, InvalidInput, "GGUF only"),
        (CONFIG, {"pytorch_model-00001-of-00002.bin"}, InvalidInput, "pickle only"),
        (CONFIG | {"consolidated.safetensors"}, (), InvalidInput, "Mistral's layout"),
        (CONFIG, {"config.json", "model.safetensors"}, EntryNotFound, "without --include"),
        (CONFIG, {"config.json", "notes.txt"}, EntryNotFound, "the repository does not have it"),
        (CONFIG, None, EntryNotFound, "m has no weights; put the whole model"),
        (set(), None, EntryNotFound, r"has no config\.json"),
    ],
)
def test_a_line_for_each_kind(here: set[str], listed: set[str] | None, error: type[P2PModelError], says: str) -> None:
    with pytest.raises(error, match=says):
        check_loadable("m", here, listed, allow_pickle=False)


def test_what_to_do_about_a_missing_shard_depends_on_the_repository() -> None:
    shards = ["1.safetensors", "2.safetensors"]
    with pytest.raises(EntryNotFound, match=r"m lacks 2\.safetensors; the repository does not have it"):
        missing_shards("m", shards, ["1.safetensors"], ["1.safetensors"])
    with pytest.raises(EntryNotFound, match=r"m lacks 1\.safetensors and 1 more of 2 shards; run 'p2pmodel fetch'"):
        missing_shards("m", shards, [], shards)
    missing_shards("m", shards, shards, [])


def test_nothing_of_a_repository_with_both_kinds_is_read_twice(text_only: Path, tmp_path: Path) -> None:
    snapshot = copy_of(text_only, tmp_path / "both")
    (snapshot / "pytorch_model.bin").write_bytes(b"not a pickle")
    assert load(snapshot, device="cpu").weight_bytes
    shutil.rmtree(snapshot)
