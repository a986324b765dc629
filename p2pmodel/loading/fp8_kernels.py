"""The kernels that FP8 weights need on a GPU: the first forward fetches them from the hub, long after the load.

transformers multiplies FP8 weights with `kernels-community/finegrained-fp8`, or with DeepGEMM, through the package
`kernels`. Offline the kernel must be in the cache already; so it is looked for before the weights are loaded.
"""

import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from p2pmodel.config.mirrors import TRUE, hf_home
from p2pmodel.errors import LocalResource

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
