"""One verified copy of a model across the slow link, then line rate inside the cluster."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["__version__", "load"]

__version__ = "0.1.0"

load: Callable[..., tuple[Any, Any]]
"""As `p2pmodel.library.load`: `model, processor = p2pmodel.load("Qwen/Qwen3-VL-8B-Instruct")`."""


def __getattr__(name: str) -> Any:
    """`load`, imported when it is first used: nothing else here needs more than the standard library."""
    if name == "load":
        return import_module("p2pmodel.library").load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
