"""Variables of older Hugging Face libraries that name the cache, and still do where no newer one is set."""

from collections.abc import Mapping
from pathlib import Path

from p2pmodel.core.content.names import printable

_HUB, _TRANSFORMERS = "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE"


def old_cache_variable(env: Mapping[str, str]) -> str:
    """The old variable that names the cache; "" without one. HF_HUB_CACHE goes before both, HF_HOME before
    TRANSFORMERS_CACHE."""
    if env.get("HF_HUB_CACHE"):
        return ""
    if env.get(_HUB):
        return _HUB
    return _TRANSFORMERS if env.get(_TRANSFORMERS) and not env.get("HF_HOME") else ""


def notices(env: Mapping[str, str], cache_dir: Path) -> list[str]:
    """A line for each old variable that is set: whether it counts, and what replaces it. `cache_dir`: the cache of this
    run."""
    cache, counts = cache_dir.expanduser(), old_cache_variable(env)
    lines = []
    for name in (_HUB, _TRANSFORMERS):
        value = env.get(name, "")
        same = Path(value).expanduser() == cache
        if value and same and name == counts:
            lines.append(f"{name} is an old name: the cache is {printable(value)}; set HF_HUB_CACHE instead")
        elif value and not same:
            lines.append(f"{name} is an old name, and has no effect here: the cache is {printable(str(cache_dir))}")
    return lines
