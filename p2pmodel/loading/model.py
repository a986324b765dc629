"""The model of a snapshot on a device, loaded by `from_pretrained` of its own class.

FP8 weights need kernels on a GPU: transformers multiplies them with `kernels-community/finegrained-fp8`, or with
DeepGEMM, through the package `kernels`. The first forward fetches them from the hub, long after the load; offline the
kernel must be in the cache already. So it is looked for before the weights are loaded.
"""

import importlib.util
import os
import re
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from p2pmodel.config.mirrors import TRUE, hf_home
from p2pmodel.core.content.names import RepoId, printable
from p2pmodel.core.sizes import counted
from p2pmodel.errors import IntegrityError, InvalidInput, LocalResource
from p2pmodel.loading.answers.processor import processor_for
from p2pmodel.loading.arrival.tensor_order import NUMBERED, numbered, without_number
from p2pmodel.loading.failures import translated
from p2pmodel.loading.formats import INDEX, SINGLE, check_code, check_known, check_loadable, missing_shards, unused
from p2pmodel.loading.optional_imports import check_device_name
from p2pmodel.loading.options import LoadOptions
from p2pmodel.loading.weights import StateDict, dtype_of, shards_of, state_dict, with_scaled_experts
from p2pmodel.store.snapshots.snapshot_list import manifest_at

PACKAGE = "kernels"
REPO = "kernels-community/finegrained-fp8"
_FOLDERS = tuple(f"{kind}--{REPO.replace('/', '--')}" for kind in ("kernels", "models"))
_INSTEAD = "serve it with vLLM ('--print-serve vllm'), or load it with --device cpu"


def check_fp8_kernel(
    config: Any,
    environment: Mapping[str, str] = os.environ,
    *,
    installed: Callable[[str], object] = importlib.util.find_spec,
) -> None:
    """Raise LocalResource if the model of `config` stays in FP8 on the GPU and its kernel cannot be had.

    Call it for GPUs that keep FP8 weights; on others they are dequantized.
    """
    quantization = getattr(config, "quantization_config", None) or {}
    if (
        not isinstance(quantization, dict)
        or quantization.get("quant_method") != "fp8"
        or quantization.get("dequantize")
    ):
        return
    if not installed(PACKAGE):
        raise LocalResource(
            "FP8 weights on this GPU need the package 'kernels'", hint=f"pip install kernels; or {_INSTEAD}"
        )
    if environment.get("HF_HUB_OFFLINE", "").upper() in TRUE and not is_cached(environment):
        raise LocalResource(
            f"FP8 weights on this GPU need {REPO}, which is not in the cache, and HF_HUB_OFFLINE is set",
            hint=f"run it once without HF_HUB_OFFLINE; or {_INSTEAD}",
        )


def is_cached(environment: Mapping[str, str]) -> bool:
    """Whether some revision of the kernel is in the cache of the package."""
    hub = environment.get("HF_HUB_CACHE") or hf_home() / "hub"
    roots = [Path(each) for each in (environment.get("KERNELS_CACHE"), hub) if each]
    return any(any((root / folder / "snapshots").glob("*")) for root in roots for folder in _FOLDERS)


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
    """From the first look at the weights to all of them on the device."""
    weight_bytes: int
    """Bytes of all parameters; tied parameters count once."""
    after_download_seconds: float | None = None
    """Of a load that ran while the files arrived: from the complete snapshot to the loaded model."""
    beside: str = ""
    """What lies beside the model and was not loaded with it, as a line; "" if there is nothing to say."""
    repo: RepoId | None = None
    commit: str = ""
    """The snapshot that was fetched for it, by the repository's name at the hub."""

    @property
    def architecture(self) -> str:
        return type(self.model).__name__


def load(
    snapshot: Path, *, device: str | None = None, allow_pickle: bool = False, options: LoadOptions | None = None
) -> LoadedModel:
    """Load the model in the directory `snapshot`, without network access and without running code of the snapshot.

    `device` and `allow_pickle` as in `LoadOptions`, unless `options` are given. Raises EntryNotFound for missing files,
    IntegrityError for damaged ones or weights that do not fit the model, and InvalidInput for what this transformers
    cannot load. Raises LocalResource if the device or its memory is not available.
    """
    chosen = options or LoadOptions(device=device, allow_pickle=allow_pickle)
    chosen.check()
    device_of(chosen)
    here = {path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()}
    listed = _listed(snapshot)
    check_loadable(str(snapshot), here, listed, allow_pickle=chosen.allow_pickle)
    with ExitStack() as stack:
        return assembled(snapshot, snapshot, lambda _place, _config: _tensors(snapshot, here, listed, stack), chosen)


TensorSource = Callable[[str, Any], StateDict | None]
"""The tensors for a device and a config; None: transformers reads the files of the folder itself."""


def assembled(
    folder: Path, snapshot: Path, tensors_for: TensorSource, options: LoadOptions, *, in_this_order: bool = False
) -> LoadedModel:
    """The model with the settings in `folder` and the tensors of `tensors_for`; it will count as that of `snapshot`.

    `in_this_order`: transformers takes the tensors in the order of the dict. Raises as `load`.
    """
    place = device_of(options)
    config = _config(folder)
    cls = _class(snapshot, config)
    if _keeps_fp8(place):
        check_fp8_kernel(config)
    with translated(f"reading the processor of {snapshot}"):
        processor = processor_for(folder)
    started = time.perf_counter()
    tensors = tensors_for(place, config)
    with translated(f"loading {snapshot}"):
        if tensors is not None:
            tensors = with_scaled_experts(tensors, _block(config), keeps_fp8=_keeps_fp8(place))
        model, report = _loaded(
            cls, folder, tensors, options, _given(config, place, options), in_this_order=in_this_order
        )
        if place.startswith("cuda"):
            torch.cuda.synchronize(place)
    _check_filled(snapshot, report)
    seconds = time.perf_counter() - started
    named: list[Any] = [model, model.config, processor, getattr(processor, "tokenizer", None)]
    for each in named:
        if hasattr(each, "name_or_path"):
            each.name_or_path = str(snapshot)
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    beside = unused({path.name for path in folder.iterdir()})
    return LoadedModel(model.eval(), processor, str(model.device), seconds, size, beside=beside)


def _tensors(
    snapshot: Path, here: Collection[str], listed: Collection[str] | None, stack: ExitStack
) -> StateDict | None:
    """The tensors of the safetensors files; None where only pickles are there."""
    if not {INDEX, SINGLE} & set(here):
        return None
    with translated(f"reading {snapshot / INDEX}"):
        shards = shards_of(snapshot)
    missing_shards(str(snapshot), shards, here, listed)
    with translated(f"loading {snapshot}"):
        return state_dict(snapshot, shards, stack)


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


def _given(config: Any, place: str, options: LoadOptions) -> dict[str, Any]:
    """The arguments of from_pretrained that do not depend on the weights."""
    given: dict[str, Any] = {
        "config": config,
        "device_map": options.device_map or place,
        "local_files_only": True,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # reported by the caller, in one line
    }
    return given if options.attn is None else given | {"attn_implementation": options.attn}


def _loaded(
    cls: Any,
    folder: Path,
    tensors: StateDict | None,
    options: LoadOptions,
    given: dict[str, Any],
    *,
    in_this_order: bool,
) -> tuple[Any, Any]:
    config = given["config"]
    dtype: Any = "auto" if options.dtype == "auto" else getattr(torch, options.dtype)
    if tensors is None:
        model, report = cls.from_pretrained(folder, dtype=dtype, use_safetensors=False, weights_only=True, **given)
        return model, report
    if dtype == "auto" and getattr(config, "dtype", None) is None:
        dtype = dtype_of(tensors)
    if in_this_order:
        names = numbered(list(tensors))
        tensors = {names[name]: tensor for name, tensor in tensors.items()}
        given["key_mapping"] = NUMBERED
    model, report = cls.from_pretrained(None, state_dict=tensors, dtype=dtype, **given)
    if in_this_order:
        _forget_numbers(model)
    # What from_pretrained sets only for a folder.
    if model.can_generate() and (folder / "generation_config.json").is_file():
        model.generation_config = transformers.GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model, report


def _forget_numbers(model: Any) -> None:
    """Else `save_pretrained` would write the tensors under numbered names."""
    kept = [
        conversion
        for conversion in getattr(model, "_weight_conversions", None) or ()
        if not NUMBERED.keys() & set(getattr(conversion, "_original_source_patterns", ()))
    ]
    if hasattr(model, "_weight_conversions"):
        model._weight_conversions = kept  # noqa: SLF001 - no public way: the mapping was given to from_pretrained


def device_of(options: LoadOptions) -> str:
    """The device to load on; with a device map the one that its first layers prefer. Raises LocalResource if this
    machine does not have it."""
    wanted = options.device
    if wanted is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    check_device_name(wanted)
    kind, _, index = wanted.partition(":")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise LocalResource(f"this machine has no device {wanted}", hint="use --device cpu, or check nvidia-smi")
    return wanted


def _config(snapshot: Path) -> Any:
    check_known(str(snapshot), snapshot / "config.json", transformers.CONFIG_MAPPING)
    with translated(f"reading {snapshot / 'config.json'}"):
        return transformers.AutoConfig.from_pretrained(snapshot, local_files_only=True, trust_remote_code=False)


def _class(snapshot: Path, config: Any) -> Any:
    name = (config.architectures or [""])[0]
    cls = getattr(transformers, name, None) if name else None
    if not (isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel)):
        check_code(str(snapshot), getattr(config, "auto_map", None))
        raise InvalidInput(
            f"transformers {transformers.__version__} has no architecture '{printable(name)}'",
            hint="try a newer transformers; code inside the repository is never run",
        )
    return cls


def _check_filled(snapshot: Path, report: Mapping[str, Any]) -> None:
    """Raise IntegrityError if tensors are missing or have another shape, which transformers leaves random, or if there
    are others, such as scales, that it does not use."""
    shapes = {key[0] if isinstance(key, tuple) else str(key) for key in report["mismatched_keys"]}
    unused = {name for name in map(without_number, map(str, report["unexpected_keys"])) if not _HARMLESS.search(name)}
    for wrong, what in ((set(report["missing_keys"]), "lack"), (shapes, "have another shape for"), (unused, _UNUSED)):
        if wrong:
            raise IntegrityError(
                f"the weights in {snapshot} {what} {counted(len(wrong), 'tensor')}, {min(wrong)} for one",
                hint="config.json, the index and the shards differ; check them with 'p2pmodel verify'",
            )
