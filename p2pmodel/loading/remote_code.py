"""Models that need code of their repository, which is never run here. Pure, except that it reads config.json."""

import json
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from p2pmodel.core.content.names import printable
from p2pmodel.errors import InvalidInput

_HINT = "read that code first; an inference engine runs it with --trust-remote-code"


def check_known(name: str, config: Path, known_types: Container[str]) -> None:
    """Raise InvalidInput if the model type in the file `config` is none of `known_types`, and code in the repository
    defines it. `name`: of the model. A file that cannot be read is left to the library."""
    try:
        found = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if isinstance(found, dict) and found.get("model_type") not in known_types:
        check_code(name, found.get("auto_map"))


def check_code(name: str, auto_map: Any) -> None:
    """Raise InvalidInput if `auto_map`, of a config that the library does not know, names code."""
    if isinstance(auto_map, Mapping) and auto_map:
        code = printable(str(next(iter(auto_map.values()))), limit=80)
        raise InvalidInput(f"{name} needs code of its repository ({code}), which is never run here", hint=_HINT)
