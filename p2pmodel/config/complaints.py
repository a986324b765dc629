"""Errors in the settings: all of them at once, on one line, each with its place and the name that was meant."""

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard, get_args

from pydantic import BaseModel, ValidationError

from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import printable
from p2pmodel.errors import InvalidInput

PREFIX = "P2PMODEL_"
HINT = "see docs/reference/settings.md"

_OTHERS = ("CLUSTER_CONFIG", "CONFIG", "DEBUG", "ENDPOINTS", "ENDPOINT_LIST", "PATH")
"""Variables that set no key by themselves; PATH is set for the command of `fetch --exec`."""
_FREE = ("_TOKEN",)
"""Endings of variables with names of the user's choice: see `token_env` of a mirror."""
_TESTS = "TEST_"
"""Variables of this project's tests."""
_MOST = 10
_MEANINGS = {
    "extra_forbidden": "there is no such setting",
    "model_type": "expected a table",
    "missing": "it is missing",
    "path_type": "expected a path",
    "tuple_type": "expected a list",
    "string_type": "expected a text",
}


@dataclass(frozen=True, slots=True)
class SettingOrigins:
    """Where values come from: the keys of the flags, and the settings files with their values, the one that counts
    more first."""

    flags: frozenset[str] = frozenset()
    files: Sequence[tuple[Path, Mapping[str, Any]]] = ()

    def place(self, parts: list[str]) -> str:
        """Where the wrong value is, for the end of a message; "" where the message names it already."""
        if ".".join(parts) in self.flags or _is_set(variable_of(".".join(parts))):
            return ""
        file = next((file for file, values in self.files if _names(values, parts)), None)
        return "" if file is None else f" (in {printable(str(file))})"


def _names(values: Mapping[str, Any], parts: list[str]) -> bool:
    """Whether a settings file has the key, or at least its table."""
    found: Any = values
    for part in parts:
        if isinstance(found, list):
            found = found[int(part)] if part.isdecimal() and int(part) < len(found) else None
        elif isinstance(found, Mapping) and part in found:
            found = found[part]
        else:
            return found is not values
    return True


def variable_of(key: str) -> str:
    """The environment variable of the setting `key` (`swarm.listen`: P2PMODEL_SWARM_LISTEN)."""
    return PREFIX + key.replace(".", "_").upper()


def complaint(error: ValidationError | None, given: SettingOrigins) -> InvalidInput | None:
    """The error for all of pydantic's complaints and for the variables that set nothing; None if there are none."""
    lines = _unknown_variables()
    if error is not None:
        lines += dict.fromkeys(_line(each, given) for each in error.errors(include_url=False))
    if not lines:
        return None
    more = f"; {len(lines) - _MOST} more" if len(lines) > _MOST else ""
    return InvalidInput("; ".join(lines[:_MOST]) + more, hint=HINT)


def _line(error: Mapping[str, Any], given: SettingOrigins) -> str:
    parts = [str(part) for part in error["loc"]]
    key, variable = ".".join(parts), variable_of(".".join(parts))
    names = f"{key} or {variable}" if key in setting_keys() or _is_set(variable) else key
    said = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    meaning = _MEANINGS.get(error["type"], said)
    if error["type"] == "extra_forbidden":
        near = _keys_of_table(parts)
        meaning += _meant(parts[-1], near) if near else _meant(key, setting_keys())
    return f"setting {printable(names)}: {meaning}{given.place(parts)}"


def _unknown_variables() -> list[str]:
    """A line for each variable with our prefix that sets nothing. Those of a section are among its values."""
    sections = tuple(f"{key.upper()}_" for key, field in Settings.model_fields.items() if is_section(field.annotation))
    known = {key.upper() for key in Settings.model_fields} | set(_OTHERS)
    found = []
    for name in sorted(os.environ):
        rest = name.upper().removeprefix(PREFIX)
        if name.upper() == rest or rest in known or rest.startswith((*sections, _TESTS)) or rest.endswith(_FREE):
            continue
        near = [variable_of(key).removeprefix(PREFIX) for key in setting_keys()]
        found.append(f"variable {printable(name)}: there is no such setting{_meant(rest, near, PREFIX)}")
    return found


def _meant(name: str, known: Iterable[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(name, list(known), 1, 0.7)
    return f", {prefix}{near[0]} is the nearest" if near else ""


def setting_keys() -> list[str]:
    """Every key of a setting that has a variable."""
    keys = []
    for name, field in Settings.model_fields.items():
        if is_section(field.annotation):
            keys += [f"{name}.{inner}" for inner in field.annotation.model_fields]
        elif name != "mirrors":
            keys.append(name)
    return keys


def _keys_of_table(parts: list[str]) -> list[str]:
    """The keys of the table in a list, such as `[[mirrors]]`, that `parts` lead into; empty if they lead into none."""
    model: type[BaseModel] = Settings
    in_list = False
    for part in parts[:-1]:
        if part.isdecimal():
            in_list = True
            continue
        field = model.model_fields.get(part)
        kinds = (field.annotation, *get_args(field.annotation)) if field is not None else ()
        model = next(filter(is_section, kinds), model)
    return list(model.model_fields) if in_list else []


def is_section(annotation: object) -> TypeGuard[type[BaseModel]]:
    """Whether a setting of this type is a table."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_set(variable: str) -> bool:
    return any(name.upper() == variable for name in os.environ)
