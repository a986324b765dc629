"""The model of a snapshot on a device, loaded by `from_pretrained` of its own class."""

import re
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from p2pmodel.core.content.names import printable
from p2pmodel.core.sizes import counted
from p2pmodel.errors import IntegrityError, InvalidInput, LocalResource
from p2pmodel.loading.failures import translated
from p2pmodel.loading.formats import INDEX, SINGLE, check_loadable, missing_shards
from p2pmodel.loading.optional_imports import check_device_name
from p2pmodel.loading.processor import processor_for
from p2pmodel.loading.weights import StateDict, dtype_of, shards_of, state_dict, with_scaled_experts
from p2pmodel.store.snapshots.snapshot_list import manifest_at

_UNUSED = "have something that this model does not use:"
_FP8_BLOCK = (128, 128)
_HARMLESS = re.compile(r"(^|\.)(inv_freq|position_ids|masked_bias|num_batches_tracked|attn\.bias)$|(^|\.)mtp\.")
"""Tensors that older versions stored, or that only training uses: without them the model computes the same."""


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


def load(snapshot: Path, *, device: str | None = None, allow_pickle: bool = False) -> LoadedModel:
    """Load the model in the directory `snapshot`, without network access and without running code of the snapshot.

    `device` is `cpu`, `cuda` or `cuda:N`; None: the GPU if there is one. `allow_pickle` admits pytorch_model.bin where
    there are no safetensors, through torch's restricted reader. Raises EntryNotFound for missing files, IntegrityError
    for damaged ones or weights that do not fit the model, and InvalidInput for what this transformers cannot load.
    Raises LocalResource if the device or its memory is not available.
    """
    place = _device(device)
    started = time.perf_counter()
    here = {path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()}
    listed = _listed(snapshot)
    check_loadable(str(snapshot), here, listed, allow_pickle=allow_pickle)
    config = _config(snapshot)
    cls = _class(config)
    with ExitStack() as stack:
        tensors = _tensors(snapshot, here, listed, stack, block=_block(config), fp8=_keeps_fp8(place))
        with translated(f"loading {snapshot}"):
            model, report = _loaded(cls, config, snapshot, tensors, place)
            if place.startswith("cuda"):
                torch.cuda.synchronize(place)
    _check_filled(snapshot, report)
    seconds = time.perf_counter() - started
    with translated(f"reading the processor of {snapshot}"):
        processor = processor_for(snapshot)
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return LoadedModel(model=model.eval(), processor=processor, device=place, seconds=seconds, weight_bytes=size)


def _tensors(
    snapshot: Path,
    here: Collection[str],
    listed: Collection[str] | None,
    stack: ExitStack,
    *,
    block: tuple[int, int],
    fp8: bool,
) -> StateDict | None:
    """The tensors of the safetensors files; None where only pickles are there."""
    if not {INDEX, SINGLE} & set(here):
        return None
    with translated(f"reading {snapshot / INDEX}"):
        shards = shards_of(snapshot)
    missing_shards(str(snapshot), shards, here, listed)
    with translated(f"loading {snapshot}"):
        tensors = state_dict(snapshot, shards, stack)
        return with_scaled_experts(tensors, block, keeps_fp8=fp8)


def _listed(snapshot: Path) -> frozenset[str] | None:
    """The paths of all files of the repository; None for a folder that is not in a cache."""
    manifest = manifest_at(snapshot)
    return frozenset(file.path for file in manifest.files) if manifest else None


def _block(config: Any) -> tuple[int, int]:
    """Rows and columns of the weights that one FP8 scale holds for."""
    quantization = getattr(config, "quantization_config", None)
    found = quantization.get("weight_block_size") if isinstance(quantization, dict) else None
    return (int(found[0]), int(found[1])) if found else _FP8_BLOCK


def _keeps_fp8(place: str) -> bool:
    """Whether transformers keeps FP8 weights on the device: since compute capability 8.9; else it dequantizes them."""
    return place.startswith("cuda") and torch.cuda.get_device_capability(place) >= (8, 9)


def _loaded(cls: Any, config: Any, snapshot: Path, tensors: StateDict | None, place: str) -> tuple[Any, Any]:
    options: dict[str, Any] = {
        "config": config,
        "device_map": place,
        "local_files_only": True,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # reported by the caller, in one line
    }
    if tensors is None:
        model, report = cls.from_pretrained(snapshot, dtype="auto", use_safetensors=False, weights_only=True, **options)
        return model, report
    dtype = "auto" if getattr(config, "dtype", None) is not None else dtype_of(tensors)
    model, report = cls.from_pretrained(None, state_dict=tensors, dtype=dtype, **options)
    # What from_pretrained sets only for a folder.
    model.name_or_path = str(snapshot)
    if model.can_generate() and (snapshot / "generation_config.json").is_file():
        model.generation_config = transformers.GenerationConfig.from_pretrained(snapshot, local_files_only=True)
    return model, report


def _device(wanted: str | None) -> str:
    if wanted is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    check_device_name(wanted)
    kind, _, index = wanted.partition(":")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise LocalResource(f"this machine has no device {wanted}", hint="use --device cpu, or check nvidia-smi")
    return wanted


def _config(snapshot: Path) -> Any:
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


def _check_filled(snapshot: Path, report: Mapping[str, Any]) -> None:
    """Raise IntegrityError if tensors are missing or have another shape, which transformers leaves random, or if there
    are others, such as scales, that it does not use."""
    shapes = {key[0] if isinstance(key, tuple) else str(key) for key in report["mismatched_keys"]}
    unused = {str(key) for key in report["unexpected_keys"] if not _HARMLESS.search(str(key))}
    for wrong, what in ((set(report["missing_keys"]), "lack"), (shapes, "have another shape for"), (unused, _UNUSED)):
        if wrong:
            raise IntegrityError(
                f"the weights in {snapshot} {what} {counted(len(wrong), 'tensor')}, {min(wrong)} for one",
                hint="config.json, the index and the shards differ; check them with 'p2pmodel verify'",
            )
