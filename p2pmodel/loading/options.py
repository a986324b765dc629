"""How a model is loaded: its device, the options that transformers gets, and how far the load is. Imports neither torch
nor transformers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from p2pmodel.core.content.names import printable
from p2pmodel.errors import InvalidInput
from p2pmodel.loading.optional_imports import check_device_name

DTYPES = ("auto", "bfloat16", "float16", "float32")
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
ATTENTIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
"""Attention implementations that transformers has itself; other names would make it download code."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """`device` is `cpu`, `cuda` or `cuda:N`; None: the GPU if there is one. `dtype` "auto": as the model says.

    `device_map` spreads the layers over several devices, instead of `device`. `attn`: the attention implementation;
    None: that of transformers. `allow_pickle` admits pytorch_model.bin where there are no safetensors.
    """

    device: str | None = None
    dtype: str = "auto"
    device_map: str | None = None
    attn: str | None = None
    allow_pickle: bool = False

    def check(self) -> None:
        """Raise InvalidInput for a value that no machine supports."""
        if self.device is not None:
            check_device_name(self.device)
            if self.device_map is not None:
                raise InvalidInput("a device and a device map exclude each other", hint="give one of them")
        _check("a dtype", self.dtype, DTYPES)
        if self.device_map is not None:
            _check("a device map", self.device_map, DEVICE_MAPS)
        if self.attn is not None:
            _check("an attention implementation", self.attn, ATTENTIONS)


def _check(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InvalidInput(f"'{printable(value)}' is not {what}", hint=f"use {', '.join(known)}")


LoadPhase = Literal["waiting", "loading", "verifying", "loaded"]
"""Waiting for the small files and the headers of the shards, loading tensors as they arrive, all tensors loaded but
not every file verified, done."""


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """Bytes of tensors: handed to the model (`loaded`), arrived in the cache, and all of them (0 while unknown)."""

    phase: LoadPhase
    loaded: int = 0
    arrived: int = 0
    total: int = 0


OnLoadProgress = Callable[[LoadProgress], object]
"""Called in the event loop."""
