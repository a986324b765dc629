"""Where each setting of this run comes from: a flag, a variable, a settings file, or the default."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from p2pmodel.config.complaints import variable_of
from p2pmodel.config.old_variables import old_cache_variable
from p2pmodel.config.settings import Settings
from p2pmodel.config.settings_file import settings_files

DEFAULT = "default"
_ABOVE_FILE = {
    "cache_dir": ("HF_HUB_CACHE",),
    "offline": ("HF_HUB_OFFLINE",),
    "progress": ("HF_HUB_DISABLE_PROGRESS_BARS",),
    "origin.http_proxy": ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"),
    "origin.https_proxy": ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"),
    "origin.no_proxy": ("NO_PROXY", "no_proxy"),
    "mirrors": ("P2PMODEL_ENDPOINTS", "HF_MIRROR_PRIORITY"),
}
"""Variables of other programs that override the settings file; the first that is set counts."""
_BELOW_FILE = {
    "cache_dir": ("HF_HOME", "XDG_CACHE_HOME"),
    "state_dir": ("XDG_STATE_HOME",),
    "daemon.socket": ("XDG_RUNTIME_DIR",),
    "mirrors": ("HF_ENDPOINT",),
}
"""Those that change a default."""
_DERIVED = {"origin.state_dir"}
"""Keys that follow another setting and are not for users."""


@dataclass(frozen=True, slots=True)
class SettingValue:
    """One setting: its value as plain data, without secrets, and where it comes from."""

    key: str
    value: Any
    source: str


def settings_values(settings: Settings, config: Path | None, flags: Mapping[str, Any]) -> list[SettingValue]:
    """Every setting in the order of the reference; `config` and `flags` as for `load_settings`."""
    files = settings_files(config)
    given = {key for key, value in flags.items() if value is not None}
    if "endpoints" in given:
        given.add("mirrors")
    return [
        SettingValue(key, _plain(value), _source(key, given, files))
        for key, value in _values(settings)
        if key not in _DERIVED
    ]


def _values(settings: Settings) -> Iterator[tuple[str, Any]]:
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from ((f"{name}.{inner}", getattr(value, inner)) for inner in type(value).model_fields)
        else:
            yield name, value


def _source(key: str, flags: set[str], files: Sequence[tuple[Path, Mapping[str, Any]]]) -> str:
    if key in flags:
        return "command line"
    if variable := _first_set(variable_of(key), *_ABOVE_FILE.get(key, ())):
        return variable
    if key == "cache_dir" and (variable := old_cache_variable(os.environ)):
        return variable
    if file := next((file for file, values in files if _in_file(values, key)), None):
        return str(file)
    return _first_set(*_BELOW_FILE.get(key, ())) or DEFAULT


def _first_set(*variables: str) -> str:
    return next((name for name in variables if os.environ.get(name)), "")


def _in_file(of_file: Mapping[str, Any], key: str) -> bool:
    section, _, name = key.rpartition(".")
    table = of_file.get(section) if section else of_file
    return isinstance(table, Mapping) and name in table


def _plain(value: Any) -> Any:
    """As JSON data; of a secret only that it is set."""
    if isinstance(value, SecretStr):
        return "(set)"
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value
