"""The weights of a snapshot as a state dict: each tensor is read when transformers asks for it.

transformers calls `tensor[...]`, and `get_dtype()` for quantized models, on each value. Slices of safetensors answer
both. So this is the place to repair a checkpoint that transformers would load wrongly without an error.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from p2pmodel.core.content.shard_header import indexed_files
from p2pmodel.errors import IntegrityError
from p2pmodel.loading.formats import INDEX, SINGLE

_SCALE = "_scale_inv"
_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
TYPES = _DTYPES | {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
"""The types of torch by their names in safetensors."""
StateDict = dict[str, Any]


def shards_of(snapshot: Path) -> list[str]:
    """The weight files that the index names, or the only one. Blocks. Raises IntegrityError for a damaged index."""
    index = snapshot / INDEX
    return indexed_files(index.read_bytes(), INDEX) if index.is_file() else [SINGLE]


def state_dict(snapshot: Path, shards: Iterable[str], stack: ExitStack) -> StateDict:
    """All tensors of `shards` by name; the files stay open until `stack` closes. Raises IntegrityError for a name in
    two shards."""
    tensors: StateDict = {}
    for shard in shards:
        opened = stack.enter_context(safe_open(snapshot / shard, framework="pt"))
        for name in opened.keys():  # noqa: SIM118 - it is no mapping
            if name in tensors:
                raise IntegrityError(f"the tensor {name} is in two weight files of {snapshot}")
            tensors[name] = opened.get_slice(name)
    return tensors


def dtype_of(tensors: StateDict) -> torch.dtype | None:
    """The type of the first tensor of a plain floating-point type, for a config that names none."""
    return next((_DTYPES[kind] for kind in (each.get_dtype() for each in tensors.values()) if kind in _DTYPES), None)


def with_scaled_experts(tensors: StateDict, block: tuple[int, int], *, keeps_fp8: bool) -> StateDict:
    """Repair fused FP8 experts: transformers 5 ignores their scales, so that weights are up to 1,000 times wrong.

    Expert weights of one layer are one tensor `experts.gate_up_proj` [E, H, 2I] with a scale for each `block`, both
    transposed to what the module has. Without FP8 kernels the weights are dequantized here, and the scales are dropped;
    with them (`keeps_fp8`) the scales are transposed as transformers transposes the weights.
    """
    repaired = dict(tensors)
    for name in [name for name in tensors if name.endswith(_SCALE)]:
        weight = name.removesuffix(_SCALE)
        if weight.endswith(".weight") or weight not in tensors or len(tensors[weight].get_shape()) != 3:
            continue
        if keeps_fp8:
            repaired[name] = _Transformed(tensors[name], tensors[name].get_dtype(), _transposed)
        else:
            repaired[weight] = _Transformed(tensors[weight], "BF16", partial(_scaled, repaired.pop(name), block))
    return repaired


class _Transformed:
    """A tensor that is changed when it is read."""

    def __init__(self, tensor: Any, dtype: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._tensor = tensor
        self._dtype = dtype
        self._change = change

    def get_dtype(self) -> str:
        """The type after the change, as safetensors names it."""
        return self._dtype

    def get_shape(self) -> list[int]:
        """The shape before the change."""
        return list(self._tensor.get_shape())

    def __getitem__(self, index: Any) -> torch.Tensor:
        return self._change(self._tensor[...])[index]


def _transposed(scale: torch.Tensor) -> torch.Tensor:
    return scale.transpose(1, 2).contiguous()


def _scaled(scales: Any, block: tuple[int, int], weight: torch.Tensor) -> torch.Tensor:
    """`weight` [E, R, C] times its `scales` [E, R / block, C / block], each of which holds for one block."""
    scale = scales[...].to(weight.device)
    result = torch.empty(weight.shape, dtype=torch.bfloat16, device=weight.device)
    for expert in range(weight.shape[0]):  # one at a time: the 32-bit copy is the largest part
        blocks = scale[expert].float().repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
        result[expert] = weight[expert].float() * blocks[: weight.shape[1], : weight.shape[2]]
    return result
