"""The settings files: which they are, and their values.

Nothing in it depends on the current folder, which may be another's: relative paths are relative to the file.
"""

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, SecretStr

from p2pmodel.config.mirrors import user_home
from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import printable
from p2pmodel.core.files.home import expanded
from p2pmodel.core.files.own_files import opened, others_can_read, text_of
from p2pmodel.errors import InvalidInput

FILE_VARIABLE = "P2PMODEL_CONFIG"
"""Names the settings file where `--config` does not."""
CLUSTER_VARIABLE = "P2PMODEL_CLUSTER_CONFIG"
"""Names a second settings file, which replaces what the first one has: bootstrap sets it for what it starts."""

_WHAT = "settings file"


def settings_file(named: Path | None) -> Path | None:
    """The file `named` by `--config`, else by P2PMODEL_CONFIG, else the one below the home directory if it exists.

    Raises InvalidInput for a named file that does not exist, and for a relative path in the variable: it would name
    another file after each change of the current folder.
    """
    named = named or _of_variable(FILE_VARIABLE)
    if named is not None:
        return _existing(named)
    usual = user_home() / ".config/p2pmodel/p2pmodel.toml"
    return usual if usual.is_file() else None


def cluster_file() -> Path | None:
    """The file named by P2PMODEL_CLUSTER_CONFIG. Raises InvalidInput as `settings_file`."""
    named = _of_variable(CLUSTER_VARIABLE)
    return None if named is None else _existing(named)


def settings_files(named: Path | None) -> list[tuple[Path, dict[str, Any]]]:
    """Each settings file of a run with its values, first the one that counts more. Raises InvalidInput."""
    files = filter(None, (cluster_file(), settings_file(named)))
    return [(file, read_settings_file(file)) for file in files]


def _of_variable(name: str) -> Path | None:
    value = os.environ.get(name)
    if not value:
        return None
    path = expanded(Path(value))
    if not path.is_absolute():
        raise InvalidInput(f"{name}={printable(value)} depends on the current folder", hint="set an absolute path")
    return path


def _existing(file: Path) -> Path:
    if not file.exists():
        raise InvalidInput(f"there is no settings file {printable(str(file))}")
    return file


def read_settings_file(file: Path) -> dict[str, Any]:
    """The values in `file`, its paths made absolute. Raises InvalidInput for a file that is not to be trusted."""
    with opened(file, _WHAT) as descriptor:
        status = os.fstat(descriptor)
        text = text_of(descriptor, file, _WHAT)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"the {_WHAT} {printable(str(file))} cannot be read: {error}") from None
    except RecursionError:
        raise InvalidInput(f"the {_WHAT} {printable(str(file))} is nested too deeply") from None
    folder = file.absolute().parent
    for table, key, kinds in list(_given(Settings, values)):
        if SecretStr in kinds and others_can_read(status):
            raise InvalidInput(
                f"others can read the {_WHAT} {printable(str(file))}, which holds a secret ({key})",
                hint=f"chmod 600 {printable(str(file))}",
            )
        if Path in kinds and isinstance(table[key], str) and table[key]:
            table[key] = str(folder / expanded(Path(table[key])))
    return values


def _given(model: type[BaseModel], values: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, tuple[Any, ...]]]:
    """Each setting in `values`: its table, its key, and the types that it may have."""
    for key, field in model.model_fields.items():
        value, kind = values.get(key), field.annotation
        if key == "mirrors":
            for mirror in value if isinstance(value, list) else ():
                if isinstance(mirror, dict):
                    yield from _given(MirrorSettings, mirror)
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            if isinstance(value, dict):
                yield from _given(kind, value)
        elif value is not None:
            yield values, key, (kind, *get_args(kind))
