"""What the command line of an inference engine depends on: the files of a snapshot, and the GPUs of this machine.

Imports neither torch nor transformers, and runs no code of the snapshot.
"""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pmodel.core.content.names import printable
from p2pmodel.core.plain_json import parse_json
from p2pmodel.core.sizes import human
from p2pmodel.errors import EntryNotFound, IntegrityError
from p2pmodel.os_errors import translated

MAX_JSON = 64 << 20
"""Bytes of the longest JSON file that is read: tokenizers and indexes of large models have a few million."""
_TEMPLATES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model in a folder. Values that its files do not state are None, "" or 0."""

    path: Path
    name: str
    """Name for clients of the engine: the repository id."""
    architecture: str = ""
    model_type: str = ""
    dtype: str = ""
    quantization: str = ""
    """`quant_method` of its config."""
    weight_bytes: int = 0
    context: int = 0
    """Longest context in tokens."""
    heads: int = 0
    """Attention heads of the text model."""
    images: bool = False
    thinking: bool = False
    """Whether its chat template has reasoning tags."""
    remote_code: bool = False
    """Whether its config names code in the repository."""
    base_model: str = ""
    """The model that its adapter extends; "" without an adapter."""
    gguf: tuple[str, ...] = ()
    """Paths of its GGUF files."""
    has_config: bool = True


def model_facts(path: Path, name: str) -> ModelFacts:
    """The facts of the model in the folder `path`, or of the GGUF file `path`. Blocks.

    Raises EntryNotFound if there is none, and IntegrityError for JSON that cannot be read.
    """
    if path.suffix == ".gguf" and path.is_file():
        return ModelFacts(path.parent, name, gguf=(path.name,), weight_bytes=path.stat().st_size, has_config=False)
    if not path.is_dir():
        raise EntryNotFound(f"{path} is not the folder of a model", hint="fetch the whole model, without FILENAMES")
    adapter = _object(path / "adapter_config.json")
    gguf = tuple(sorted(file.relative_to(path).as_posix() for file in path.rglob("*.gguf") if file.is_file()))
    base = str((adapter or {}).get("base_model_name_or_path") or "")
    config = _object(path / "config.json")
    if config is None:
        return ModelFacts(path, name, gguf=gguf, base_model=base, has_config=False)
    text = _nested(config, "text_config") or config
    return ModelFacts(
        path=path,
        name=name,
        architecture=_first_text(config.get("architectures")),
        model_type=str(config.get("model_type") or ""),
        dtype=_dtype(config, text),
        quantization=str(_nested(config, "quantization_config").get("quant_method") or ""),
        weight_bytes=sum(file.stat().st_size for file in _weights(path)),
        context=_number(text, "max_position_embeddings"),
        heads=_number(text, "num_attention_heads"),
        images="vision_config" in config,
        thinking=_has_reasoning(path),
        remote_code="auto_map" in config,
        base_model=base,
        gguf=gguf,
    )


def _object(path: Path) -> dict[str, Any] | None:
    """The JSON object in `path`; None if there is no such file."""
    if not path.is_file():
        return None
    with translated():
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_JSON else b""
    try:
        found = parse_json(data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise IntegrityError(f"{path} is not a JSON object", hint="check the snapshot with 'p2pmodel verify'")
    return found


def _nested(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = config.get(key)
    return found if isinstance(found, dict) else {}


def _first_text(value: Any) -> str:
    return printable(str(value[0])) if isinstance(value, list) and value else ""


def _number(config: Mapping[str, Any], key: str) -> int:
    found = config.get(key)
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else 0


def _dtype(config: Mapping[str, Any], text: Mapping[str, Any]) -> str:
    """The type of the weights; transformers before 5 wrote `torch_dtype`."""
    found = next((each[key] for each in (config, text) for key in ("dtype", "torch_dtype") if each.get(key)), "")
    return str(found).removeprefix("torch.")


def _weights(path: Path) -> Iterator[Path]:
    """The weight files of transformers' layout that are here."""
    index = _object(path / _INDEX)
    names = set(map(str, _nested(index, "weight_map").values())) if index else {_SINGLE}
    yield from (path / name for name in sorted(names) if (path / name).is_file())


def _has_reasoning(path: Path) -> bool:
    for name in _TEMPLATES:
        file = path / name
        if file.is_file() and file.stat().st_size <= MAX_JSON and b"<think>" in _template(file):
            return True
    return False


def _template(file: Path) -> bytes:
    """The chat template in `file`: a tokenizer's config also lists the tags among its tokens."""
    with translated():
        data = file.read_bytes()
    if file.suffix != ".json":
        return data
    found = _object(file) or {}
    return str(found.get("chat_template") or "").encode(errors="replace")


QUERY = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")
"""Prints the memory of each GPU in MiB, one a line."""
PATIENCE = 10.0
"""Seconds for nvidia-smi: it loads the driver where nothing keeps it loaded."""


def gpu_memory() -> tuple[int, ...]:
    """Bytes of memory of each GPU; empty without GPUs, or if nvidia-smi does not answer in time. Blocks."""
    if shutil.which(QUERY[0]) is None:
        return ()
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, timeout=PATIENCE, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parsed(done.stdout) if done.returncode == 0 else ()


def parsed(output: str) -> tuple[int, ...]:
    """The bytes in the output of QUERY. A line that is no number, as of a GPU in an error state, counts as no GPU."""
    return tuple(int(line) << 20 for line in map(str.strip, output.splitlines()) if line.isdecimal())


def described(memory: tuple[int, ...]) -> str:
    """`memory` in words."""
    return f"{len(memory)} x {human(min(memory))}" if memory else "no GPU"
