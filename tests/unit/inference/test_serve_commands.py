"""The printed command lines: the facts of a model, and the options that each engine documents."""

import inspect
import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers.cli.serve import Serve

from p2pmodel.errors import EntryNotFound, IntegrityError, InvalidInput
from p2pmodel.inference.model_facts import ModelFacts, model_facts, parsed
from p2pmodel.inference.serve_commands import ENGINES, serve_command, tensor_parallel
from tests.support.tiny_models import copy_of, in_fp8

GIB = 1 << 30
DOCUMENTED: dict[str, Any] = json.loads((Path(__file__).parent / "documented_options.json").read_text())
LARGE = ModelFacts(
    path=Path("/models/large"),
    name="org/large",
    architecture="Qwen3VLMoeForConditionalGeneration",
    model_type="qwen3_vl_moe",
    dtype="bfloat16",
    weight_bytes=470 * GIB,
    context=262_144,
    heads=64,
    images=True,
    thinking=True,
    gguf=("large-Q4-00001-of-00002.gguf", "large-Q4-00002-of-00002.gguf", "mmproj-F16.gguf"),
)


def words(engine: str, facts: ModelFacts, *gib: int) -> list[str]:
    command = serve_command(engine, facts, tuple(each * GIB for each in gib))  # type: ignore[arg-type]
    return list(command.words)


def test_the_facts_of_a_vision_model(thinking: Path, moe: Path) -> None:
    facts = model_facts(thinking, "org/tiny")
    assert (facts.architecture, facts.model_type) == ("Qwen3VLForConditionalGeneration", "qwen3_vl")
    assert (facts.dtype, facts.images, facts.thinking, facts.quantization) == ("bfloat16", True, True, "")
    assert facts.weight_bytes == sum(path.stat().st_size for path in thinking.glob("model-*.safetensors"))
    assert facts.heads > 0
    assert facts.context > 0
    assert not model_facts(moe, "org/tiny").thinking


def test_the_facts_of_a_text_model_in_one_file(text_only: Path) -> None:
    facts = model_facts(text_only, "org/text")
    assert facts.weight_bytes == (text_only / "model.safetensors").stat().st_size
    assert not facts.images


def test_a_tag_among_the_tokens_is_no_reasoning_model(dense: Path) -> None:
    assert "<think>" in (dense / "tokenizer_config.json").read_text()
    assert not model_facts(dense, "org/dense").thinking


def test_fp8_is_left_to_the_engine(dense: Path, tmp_path: Path) -> None:
    facts = model_facts(in_fp8(dense, tmp_path / "fp8"), "org/fp8")
    assert facts.quantization == "fp8"
    command = serve_command("vllm", facts, (80 * GIB,))
    assert not {"--quantization", "--dtype"} & set(command.words)
    assert "quantization fp8: the engine reads it from config.json" in command.notes
    assert any("kernel of the hub" in note for note in serve_command("transformers", facts, (80 * GIB,)).notes)
    assert not any("kernel of the hub" in note for note in serve_command("transformers", facts, ()).notes)


@pytest.mark.parametrize("engine", [each for each in ENGINES if each != "transformers"])
def test_every_option_is_one_that_the_engine_documents(engine: str) -> None:
    options = {word for word in words(engine, LARGE, *(80,) * 8) if word.startswith("--")}
    assert options
    assert options <= set(DOCUMENTED[engine]["options"])


def test_every_option_of_transformers_is_one_of_its_command(dense: Path) -> None:
    command = words("transformers", model_facts(dense, "org/dense"))
    parameters = inspect.signature(Serve.__init__).parameters
    assert command[:2] == ["transformers", "serve"]
    assert {word for word in command if word.startswith("--")} <= {f"--{name.replace('_', '-')}" for name in parameters}
    assert "force_model" in parameters, "the path is its argument"


def test_a_large_vision_model_on_eight_gpus() -> None:
    assert words("vllm", LARGE, *(80,) * 8) == [
        *("vllm", "serve", "/models/large", "--served-model-name", "org/large", "--dtype", "bfloat16"),
        *("--max-model-len", "32768", "--tensor-parallel-size", "8"),
        *("--limit-mm-per-prompt", '{"image": 8, "video": 0}', "--reasoning-parser", "qwen3"),
    ]
    assert words("sglang", LARGE, *(80,) * 8)[3:] == [
        *("--model-path", "/models/large", "--served-model-name", "org/large", "--dtype", "bfloat16"),
        *("--context-length", "32768", "--tp-size", "8", "--enable-multimodal", "--reasoning-parser", "qwen3"),
    ]


def test_the_line_is_one_for_sh() -> None:
    command = serve_command("vllm", replace(LARGE, path=Path("/my models/large")), ())
    line = str(command)
    assert line.startswith("HF_HUB_OFFLINE=1 vllm serve '/my models/large' ")
    assert tuple(shlex.split(line)[1:]) == command.words


@pytest.mark.parametrize(
    ("weights", "heads", "gpus", "split"),
    [
        (16, 32, (), 1),
        (16, 32, (80,), 1),
        (100, 32, (80, 80, 80, 80), 2),
        (100, 32, (80, 80, 80), 2),
        (100, 12, (24,) * 8, 4),
        (470, 64, (80,) * 8, 8),
        (900, 64, (80,) * 8, 8),
        (100, 5, (80, 80), 1),
        (100, 32, (80, 24, 80, 80), 4),
    ],
)
def test_the_number_of_gpus(weights: int, heads: int, gpus: tuple[int, ...], split: int) -> None:
    assert tensor_parallel(weights * GIB, heads, tuple(each * GIB for each in gpus)) == split


def test_what_does_not_fit_is_said() -> None:
    notes = serve_command("vllm", replace(LARGE, weight_bytes=900 * GIB), (80 * GIB,) * 8).notes
    assert "966.4 GB of weights do not fit 8 x 85.9 GB with room for the context" in notes
    notes = serve_command("vllm", LARGE, ()).notes
    assert "no GPU is seen here; where several serve 504.7 GB of weights, add --tensor-parallel-size N" in notes
    assert "the model takes up to 262144 tokens: raise --max-model-len where memory allows" in notes


def test_llama_cpp_gets_the_first_part_and_the_projector() -> None:
    assert words("llama.cpp", LARGE) == [
        *("llama-server", "--model", "/models/large/large-Q4-00001-of-00002.gguf", "--alias", "org/large"),
        *("--mmproj", "/models/large/mmproj-F16.gguf", "--ctx-size", "32768"),
    ]


def test_one_gguf_file(tmp_path: Path) -> None:
    (tmp_path / "m-Q8_0.gguf").write_bytes(b"GGUF")
    facts = model_facts(tmp_path / "m-Q8_0.gguf", "org/m")
    assert words("llama.cpp", facts) == ["llama-server", "--model", f"{tmp_path}/m-Q8_0.gguf", "--alias", "org/m"]
    with pytest.raises(InvalidInput, match=r"org/m has GGUF files only; use --print-serve llama.cpp"):
        serve_command("vllm", facts, ())


def test_one_of_several_gguf_models_must_be_chosen() -> None:
    facts = replace(LARGE, gguf=("a-Q4.gguf", "a-Q8.gguf"))
    with pytest.raises(InvalidInput, match=r"has 2 models as GGUF, a-Q4.gguf for one; choose one"):
        serve_command("llama.cpp", facts, ())
    with pytest.raises(InvalidInput, match=r"has no GGUF file, which llama.cpp needs; convert it"):
        serve_command("llama.cpp", replace(LARGE, gguf=()), ())


def test_an_adapter_names_its_base_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    with pytest.raises(
        InvalidInput, match=r"is an adapter, not a model; fetch org/base too, then: vllm serve org/base"
    ):
        serve_command("vllm", model_facts(tmp_path, "org/lora"), ())


def test_an_adapter_beside_a_model_is_said() -> None:
    for engine in ("vllm", "sglang"):
        with_adapter = serve_command(engine, replace(LARGE, base_model="org/base"), (80 * GIB,) * 8)  # type: ignore[arg-type]
        assert "the adapter beside the model is not served" in with_adapter.notes


def test_files_that_are_no_model(dense: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"has no config.json with safetensors, which sglang needs; fetch the whole"):
        serve_command("sglang", model_facts(tmp_path, "org/x"), ())
    with pytest.raises(EntryNotFound, match=r"is not the folder of a model"):
        model_facts(dense / "config.json", "org/x")
    broken = copy_of(dense, tmp_path / "broken")
    (broken / "config.json").write_text("[]")
    with pytest.raises(IntegrityError, match=r"is not a JSON object"):
        model_facts(broken, "org/x")


def test_the_output_of_nvidia_smi() -> None:
    assert parsed("81559\n81559\n[Unknown Error]\n\n") == (81559 << 20,) * 2
    assert parsed("") == ()
