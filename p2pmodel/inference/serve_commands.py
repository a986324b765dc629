"""The command line with which each inference engine serves a snapshot. Pure.

The options are those that the engines document (tests compare them with lists of these). What an engine finds in the
model's own config, such as its quantization, is left to it: an explicit value could only differ.
"""

import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from p2pmodel.core.sizes import human
from p2pmodel.errors import InvalidInput
from p2pmodel.inference.model_facts import ModelFacts, described

InferenceEngine = Literal["vllm", "sglang", "transformers", "llama.cpp"]
ENGINES: tuple[InferenceEngine, ...] = get_args(InferenceEngine)

CONTEXT = 32_768
"""Tokens of context by default, at most. Models that state 262,144 need more memory for them than for their weights,
and engines that find too little do not start."""
IMAGES = 8
"""Images in one request, at most: engines reserve memory for the largest request."""
SHARE = 0.75
"""Share of a GPU's memory that the weights may take; the rest is for the context."""
_PLAIN_DTYPES = ("bfloat16", "float16")
_OFFLINE = ("HF_HUB_OFFLINE=1",)


@dataclass(frozen=True, slots=True)
class ServeCommand:
    """`words` of a command line, variables of its environment, and what to know about it."""

    words: tuple[str, ...]
    environment: tuple[str, ...] = _OFFLINE
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As a line for sh."""
        return " ".join([*self.environment, shlex.join(self.words)])

    def plain(self) -> dict[str, Any]:
        """As a JSON object."""
        variables = dict(each.split("=", 1) for each in self.environment)
        return {"command": list(self.words), "environment": variables, "notes": list(self.notes)}


def serve_command(engine: InferenceEngine, facts: ModelFacts, memory: tuple[int, ...]) -> ServeCommand:
    """The command with which `engine` serves the model on GPUs with so many bytes of `memory` each.

    Raises InvalidInput if that engine cannot serve these files.
    """
    if engine != "llama.cpp":
        _check_transformers_layout(engine, facts)
    return _COMMANDS[engine](facts, memory)


def tensor_parallel(weight_bytes: int, heads: int, memory: tuple[int, ...]) -> int:
    """The number of GPUs to split a model over: the least power of two that has room for the weights and divides the
    attention heads; all that are there, if even they have too little room. 1 without GPUs."""
    if not memory:
        return 1
    counts = [count for count in (1, 2, 4, 8, 16, 32) if count <= len(memory) and (not heads or heads % count == 0)]
    room = min(memory) * SHARE
    return next((count for count in counts if weight_bytes <= room * count), max(counts))


def _check_transformers_layout(engine: str, facts: ModelFacts) -> None:
    if facts.has_config and facts.weight_bytes:
        return
    if facts.base_model or (not facts.has_config and (facts.path / "adapter_config.json").is_file()):
        base = facts.base_model or "BASE"
        served = f"vllm serve {shlex.quote(base)} --enable-lora --lora-modules {shlex.quote(f'NAME={facts.path}')}"
        raise InvalidInput(f"{facts.name} is an adapter, not a model", hint=f"fetch {base} too, then: {served}")
    if facts.gguf:
        raise InvalidInput(f"{facts.name} has GGUF files only", hint="use --print-serve llama.cpp")
    raise InvalidInput(
        f"{facts.name} has no config.json with safetensors, which {engine} needs",
        hint="fetch the whole model, without FILENAMES, --include and --exclude",
    )


def _vllm(facts: ModelFacts, memory: tuple[int, ...]) -> ServeCommand:
    words = ["vllm", "serve", str(facts.path), "--served-model-name", facts.name]
    if facts.dtype in _PLAIN_DTYPES and not facts.quantization:
        words += ["--dtype", facts.dtype]
    if facts.context:
        words += ["--max-model-len", str(min(facts.context, CONTEXT))]
    if (split := tensor_parallel(facts.weight_bytes, facts.heads, memory)) > 1:
        words += ["--tensor-parallel-size", str(split)]
    if facts.images:
        words += ["--limit-mm-per-prompt", json.dumps({"image": IMAGES, "video": 0})]
    if _qwen3_reasoning(facts):
        words += ["--reasoning-parser", "qwen3"]
    return ServeCommand(tuple(words), notes=tuple(_notes(facts, memory, "--max-model-len", "--tensor-parallel-size")))


def _sglang(facts: ModelFacts, memory: tuple[int, ...]) -> ServeCommand:
    words = ["python", "-m", "sglang.launch_server", "--model-path", str(facts.path)]
    words += ["--served-model-name", facts.name]
    if facts.dtype in _PLAIN_DTYPES and not facts.quantization:
        words += ["--dtype", facts.dtype]
    if facts.context:
        words += ["--context-length", str(min(facts.context, CONTEXT))]
    if (split := tensor_parallel(facts.weight_bytes, facts.heads, memory)) > 1:
        words += ["--tp-size", str(split)]
    if facts.images:
        words += ["--enable-multimodal"]
    if _qwen3_reasoning(facts):
        words += ["--reasoning-parser", "qwen3"]
    return ServeCommand(tuple(words), notes=tuple(_notes(facts, memory, "--context-length", "--tp-size")))


def _transformers(facts: ModelFacts, memory: tuple[int, ...]) -> ServeCommand:
    words = ["transformers", "serve", str(facts.path), "--dtype", "auto", "--device", "auto" if memory else "cpu"]
    notes = ["it needs transformers[serving] and accelerate", f"clients name the model {facts.path}"]
    notes.append("it answers one request at a time")
    if facts.images:
        notes.append("images need torchvision, of the build that fits torch")
    if facts.quantization == "fp8" and memory:
        notes.append("FP8 on a GPU needs a kernel of the hub at the first token: offline, use vLLM or SGLang")
    return ServeCommand(tuple(words), notes=tuple(notes))


def _llama_cpp(facts: ModelFacts, _memory: tuple[int, ...]) -> ServeCommand:
    first, projector = _gguf_files(facts)
    words = ["llama-server", "--model", str(facts.path / first), "--alias", facts.name]
    if projector:
        words += ["--mmproj", str(facts.path / projector)]
    if facts.context:
        words += ["--ctx-size", str(min(facts.context, CONTEXT))]
    return ServeCommand(tuple(words), environment=())


def _gguf_files(facts: ModelFacts) -> tuple[str, str]:
    """The file to name to llama.cpp, and the one for images or ""."""
    projectors = [path for path in facts.gguf if Path(path).name.startswith("mmproj")]
    others = [path for path in facts.gguf if path not in projectors]
    firsts = [path for path in others if "-of-" not in Path(path).name or "-00001-of-" in Path(path).name]
    if not firsts:
        raise InvalidInput(
            f"{facts.name} has no GGUF file, which llama.cpp needs",
            hint=f"convert it with convert_hf_to_gguf.py {facts.path}, or fetch a GGUF repository",
        )
    if len(firsts) > 1:
        raise InvalidInput(
            f"{facts.name} has {len(firsts)} models as GGUF, {firsts[0]} for one",
            hint="choose one: name its file after the repository",
        )
    return firsts[0], (projectors[0] if projectors else "")


def _qwen3_reasoning(facts: ModelFacts) -> bool:
    return facts.thinking and facts.model_type.startswith("qwen3")


def _notes(facts: ModelFacts, memory: tuple[int, ...], context: str, split: str) -> Iterator[str]:
    size = human(facts.weight_bytes)
    if not memory:
        yield f"no GPU is seen here; where several serve {size} of weights, add {split} N"
    elif facts.weight_bytes > SHARE * min(memory) * tensor_parallel(facts.weight_bytes, facts.heads, memory):
        yield f"{size} of weights do not fit {described(memory)} with room for the context"
    if facts.context > CONTEXT:
        yield f"the model takes up to {facts.context} tokens: raise {context} where memory allows"
    if facts.quantization:
        yield f"quantization {facts.quantization}: the engine reads it from config.json"
    if facts.base_model:
        yield "the adapter beside the model is not served"
    if facts.remote_code:
        yield "its config names code of the repository: --trust-remote-code runs it in an engine that needs it"
    if facts.thinking and not _qwen3_reasoning(facts):
        yield "it is a reasoning model: --reasoning-parser NAME separates the reasoning from the answer"


_COMMANDS: dict[str, Callable[[ModelFacts, tuple[int, ...]], ServeCommand]] = {
    "vllm": _vllm,
    "sglang": _sglang,
    "transformers": _transformers,
    "llama.cpp": _llama_cpp,
}
