"""Which files of a snapshot are weights and settings, and why some models cannot be loaded here: the format of their
weights, or code of their repository, which is never run. Pure, except that it reads config.json.
"""

import fnmatch
from collections.abc import Collection, Container, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from p2pmodel.core.content.layout import MIB
from p2pmodel.core.content.names import printable
from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import EntryNotFound, InvalidInput, P2PModelError

OTHER_WEIGHTS = (
    *("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.h5", "*.msgpack", "*.onnx", "*.tflite", "*.gguf"),
    "consolidated*.safetensors",
)
"""Patterns of weights that `load` does not use: formats of other programs, and pickles, which can run code."""

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_PICKLES = ("pytorch_model*.bin",)
_NOT_THERE = "the repository does not have it at this commit: fetch another revision, or ask its publisher"
_COPY = "put the whole model into that folder"
_AGAIN = "run 'p2pmodel fetch' again without --include and --exclude; it resumes"


def check_loadable(name: str, here: Collection[str], listed: Collection[str] | None, *, allow_pickle: bool) -> None:
    """Raise the error that says why the model `name` cannot be loaded; return if it may be possible.

    `here`: the paths of the snapshot's files on this machine; `listed`: those of the whole repository, None for
    a folder that is not in a cache.
    """
    known = set(here) | set(listed or ())
    if "config.json" not in here:
        raise _no_config(name, known, listed)
    if INDEX in here or SINGLE in here or (allow_pickle and _matching(here, _PICKLES)):
        return
    raise _no_weights(name, known, listed)


def unused(here: Collection[str]) -> str:
    """What lies beside a model and is not loaded with it, as a line; "" if there is nothing to say."""
    if "adapter_config.json" not in here:
        return ""
    return "the adapter beside the model (adapter_config.json) is not applied; peft adds it to the model"


def missing_shards(name: str, shards: Iterable[str], here: Collection[str], listed: Collection[str] | None) -> None:
    """Raise EntryNotFound if shards of the index are not here: because they were not fetched, or the repository lacks
    them."""
    missing = sorted(set(shards) - set(here))
    if not missing:
        return
    more = f" and {len(missing) - 1} more of {len(set(shards))} shards" if len(missing) > 1 else ""
    raise EntryNotFound(f"{name} lacks {printable(missing[0])}{more}", hint=_why_absent(listed, missing[:1]))


def _why_absent(listed: Collection[str] | None, patterns: Iterable[str]) -> str:
    """What to do about files that are not here: it depends on whether the repository has them."""
    if listed is None:
        return _COPY
    return _AGAIN if _matching(listed, patterns) else _NOT_THERE


def _no_config(name: str, known: set[str], listed: Collection[str] | None) -> P2PModelError:
    if "adapter_config.json" in known:
        return InvalidInput(
            f"{name} is an adapter (LoRA or the like), not a model",
            hint="load the base model that its adapter_config.json names; peft then adds the adapter",
        )
    if "model_index.json" in known:
        return InvalidInput(
            f"{name} is a diffusers pipeline", hint="load it with diffusers; its files are in the cache"
        )
    if _matching(known, ("*.gguf",)):
        return _gguf(name)
    return EntryNotFound(f"{name} has no config.json", hint=_why_absent(listed, ("config.json",)))


def _no_weights(name: str, known: set[str], listed: Collection[str] | None) -> P2PModelError:
    pickles = _matching(known, _PICKLES)
    if pickles:
        return InvalidInput(
            f"{name} has its weights as pickle only ({printable(pickles[0])}), which can run code",
            hint="--allow-pickle loads them with torch's restricted reader; prefer a revision with safetensors",
        )
    if _matching(known, ("*.gguf",)):
        return _gguf(name)
    if _matching(known, ("consolidated*.safetensors",)):
        return InvalidInput(
            f"{name} has its weights in Mistral's layout only (consolidated.safetensors)",
            hint="use an engine that reads it, or a repository in transformers' layout",
        )
    return EntryNotFound(f"{name} has no weights", hint=_why_absent(listed, ("*.safetensors",)))


def _gguf(name: str) -> InvalidInput:
    return InvalidInput(
        f"{name} has its weights as GGUF only", hint="load the files with llama.cpp; --include '*.gguf' fetches them"
    )


def _matching(paths: Iterable[str], patterns: Iterable[str]) -> list[str]:
    return sorted(path for path in paths if any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns))


_KINDS = frozenset({".json", ".jinja", ".txt", ".model", ".tiktoken", ".vocab"})
LARGEST = 64 * MIB


def is_settings(path: str, size: int) -> bool:
    """Whether transformers may read this file before the weights: settings, a tokenizer, a chat template."""
    return PurePosixPath(path).suffix in _KINDS and size <= LARGEST


_HINT = "read that code first; an inference engine runs it with --trust-remote-code"


def check_known(name: str, config: Path, known_types: Container[str]) -> None:
    """Raise InvalidInput if the model type in the file `config` is none of `known_types`, and code in the repository
    defines it. `name`: of the model. A file that cannot be read is left to the library."""
    try:
        found = parse_json(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if isinstance(found, dict) and found.get("model_type") not in known_types:
        check_code(name, found.get("auto_map"))


def check_code(name: str, auto_map: Any) -> None:
    """Raise InvalidInput if `auto_map`, of a config that the library does not know, names code."""
    if isinstance(auto_map, Mapping) and auto_map:
        code = printable(str(next(iter(auto_map.values()))), limit=80)
        raise InvalidInput(f"{name} needs code of its repository ({code}), which is never run here", hint=_HINT)
