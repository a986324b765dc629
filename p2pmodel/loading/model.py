"""The model of a snapshot on a device, loaded by `from_pretrained` of its own class."""

import glob
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from p2pmodel.core.content.names import printable
from p2pmodel.core.sizes import counted
from p2pmodel.errors import EntryNotFound, IntegrityError, InvalidInput, LocalResource
from p2pmodel.loading.failures import translated
from p2pmodel.loading.optional_imports import check_device_name
from p2pmodel.loading.processor import processor_for
from p2pmodel.store.snapshot_list import manifest_at

_INDEX = "model.safetensors.index.json"
_WEIGHTS = ("*.safetensors", "*.bin")
_FETCH_AGAIN = "run 'p2pmodel fetch' again without --include and --exclude; it resumes"
_NOT_THERE = "the repository does not have it at this commit: fetch another revision, or ask its publisher"
_COPY = "put the whole model into that folder"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model on a device. `processor` is its processor, or the tokenizer of a text-only model."""

    model: Any
    processor: Any
    device: str
    seconds: float
    """From the call of `load` to weights on the device."""
    weight_bytes: int
    """Bytes of all parameters; tied parameters count once."""

    @property
    def architecture(self) -> str:
        return type(self.model).__name__


def load(snapshot: Path, *, device: str | None = None) -> LoadedModel:
    """Load the model in the directory `snapshot`, without network access and without running code of the snapshot.

    `device` is `cpu`, `cuda` or `cuda:N`; None: the GPU if there is one. Raises EntryNotFound for missing files,
    IntegrityError for damaged ones, and InvalidInput for an architecture that this transformers lacks. Raises
    LocalResource if the device or its memory is not available.
    """
    place = _device(device)
    started = time.perf_counter()
    config = _config(snapshot)
    _check_complete(snapshot)
    with translated(f"loading {snapshot}"):
        model, report = _class(config).from_pretrained(
            snapshot,
            config=config,
            dtype="auto",
            device_map=place,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, in one line
        )
        if place.startswith("cuda"):
            torch.cuda.synchronize(place)
    _check_filled(snapshot, report)
    seconds = time.perf_counter() - started
    with translated(f"reading the processor of {snapshot}"):
        processor = processor_for(snapshot)
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return LoadedModel(model=model.eval(), processor=processor, device=place, seconds=seconds, weight_bytes=size)


def _device(wanted: str | None) -> str:
    if wanted is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    check_device_name(wanted)
    kind, _, index = wanted.partition(":")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise LocalResource(f"this machine has no device {wanted}", hint="use --device cpu, or check nvidia-smi")
    return wanted


def _config(snapshot: Path) -> Any:
    if not (snapshot / "config.json").is_file():
        raise EntryNotFound(f"{snapshot} has no config.json", hint=_why_absent(snapshot, "config.json"))
    with translated(f"reading {snapshot / 'config.json'}"):
        return transformers.AutoConfig.from_pretrained(snapshot, local_files_only=True, trust_remote_code=False)


def _class(config: Any) -> Any:
    name = (config.architectures or [""])[0]
    cls = getattr(transformers, name, None) if name else None
    if not (isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel)):
        raise InvalidInput(
            f"transformers {transformers.__version__} has no architecture '{printable(name)}'",
            hint="try a newer transformers; code inside the repository is never run",
        )
    return cls


def _check_complete(snapshot: Path) -> None:
    """Raise EntryNotFound unless every shard of the index exists; transformers reports that in many lines."""
    index = snapshot / _INDEX
    if not index.is_file():
        if not any(path.is_file() for pattern in _WEIGHTS for path in snapshot.glob(pattern)):
            raise EntryNotFound(f"{snapshot} has no weights", hint=_why_absent(snapshot, *_WEIGHTS))
        return
    with translated(f"reading {index}"):
        shards = {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    missing = sorted(name for name in shards if not (snapshot / name).is_file())
    if missing:
        more = f" and {len(missing) - 1} more of {len(shards)} shards" if len(missing) > 1 else ""
        raise EntryNotFound(
            f"{snapshot} lacks {printable(missing[0])}{more}", hint=_why_absent(snapshot, glob.escape(missing[0]))
        )


def _why_absent(snapshot: Path, *patterns: str) -> str:
    """What to do about files of these patterns that `snapshot` lacks: it depends on whether the repository has them."""
    manifest = manifest_at(snapshot)
    if manifest is None:
        return _COPY
    return _FETCH_AGAIN if manifest.select(patterns) else _NOT_THERE


def _check_filled(snapshot: Path, report: Mapping[str, Any]) -> None:
    """Raise IntegrityError if tensors are missing or have another shape: transformers leaves them random and warns."""
    shapes = {key[0] if isinstance(key, tuple) else str(key) for key in report["mismatched_keys"]}
    for wrong, what in ((set(report["missing_keys"]), "lack"), (shapes, "have another shape for")):
        if wrong:
            raise IntegrityError(
                f"the weights in {snapshot} {what} {counted(len(wrong), 'tensor')}, {min(wrong)} for one",
                hint="config.json, the index and the shards differ; check them with 'p2pmodel verify'",
            )
