"""The layers settings are read from, once: defaults < settings file < cluster's settings file < environment < flags.

It also says where each setting of this run comes from. Every setting `section.key` has the environment variable
`P2PMODEL_SECTION_KEY`. The variables of the Hugging Face clients stand between: HF_HUB_CACHE, HF_HUB_OFFLINE,
HF_HUB_DISABLE_PROGRESS_BARS, and older ones that name the cache where no newer one is set; `mirrors` reads the others.
So do HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_origin

from pydantic import BaseModel, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from p2pmodel.config.complaints import HINT, PREFIX, SettingOrigins, complaint, is_section, variable_of
from p2pmodel.config.mirrors import TRUE, hf_home, mirrors_in_order, user_home
from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.config.sections.section import split_list
from p2pmodel.config.settings import Settings
from p2pmodel.config.settings_file import settings_files
from p2pmodel.core.content.names import printable
from p2pmodel.core.files.home import expanded
from p2pmodel.core.network.proxies import proxies_of
from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import InvalidInput

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
    cache, counts = expanded(cache_dir), old_cache_variable(env)
    lines = []
    for name in (_HUB, _TRANSFORMERS):
        value = env.get(name, "")
        same = expanded(Path(value)) == cache
        if value and same and name == counts:
            lines.append(f"{name} is an old name: the cache is {printable(value)}; set HF_HUB_CACHE instead")
        elif value and not same:
            lines.append(f"{name} is an old name, and has no effect here: the cache is {printable(str(cache_dir))}")
    return lines


def load_settings(*, config: Path | None = None, flags: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings of this run from all layers.

    `config` is the `--config` flag. Without it the file is P2PMODEL_CONFIG, else ~/.config/p2pmodel/p2pmodel.toml if
    that exists. The file of P2PMODEL_CLUSTER_CONFIG replaces what that one has. A file of another user, or one that
    others can change, is refused. `flags` uses the keys of `Settings`,
    nested with dots (`swarm.listen`); None stands for a flag that was not given. Raises InvalidInput naming the
    setting.
    """
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    files = settings_files(config)
    places = SettingOrigins(frozenset(given), files)
    layers = _layers([values for _, values in files], flag_endpoints="endpoints" in given)
    try:
        loaded = layers(**_nested(given))
        settings = Settings.model_validate({name: getattr(loaded, name) for name in Settings.model_fields})
        wrong = complaint(None, places)
    except ValidationError as error:
        wrong = complaint(error, places)
    except SettingsError:
        raise _not_json() from None
    if wrong:
        raise wrong
    return settings


def _not_json() -> InvalidInput:
    """The error for a variable of a table, or of a list of tables, which is JSON."""
    fields = dict(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        if is_section(field.annotation):
            fields |= {f"{name}.{key}": inner for key, inner in field.annotation.model_fields.items()}
    tables = [
        key
        for key, field in fields.items()
        if is_section(field.annotation) or (get_origin(field.annotation) is tuple and NoDecode not in field.metadata)
    ]
    wrong = [name for name in map(variable_of, tables) if not _is_json(os.environ.get(name) or "null")]
    return InvalidInput(f"the value of {', '.join(wrong) or 'a variable'} is not JSON", hint=HINT)


def _is_json(text: str) -> bool:
    try:
        parse_json(text)
    except ValueError:
        return False
    return True


def bucket_settings(mirrors: Sequence[MirrorSettings], endpoint: str, given: Mapping[str, Any]) -> MirrorSettings:
    """The settings of the bucket at `endpoint`: those of the mirror with this endpoint, if any, and those `given`
    on the command line. Raises InvalidInput."""
    known = next((mirror for mirror in mirrors if mirror.endpoint == endpoint.rstrip("/")), None)
    values = known.model_dump(exclude_none=True) if known else {"name": endpoint, "endpoint": endpoint}
    try:
        return MirrorSettings.model_validate(values | {key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InvalidInput(reason, hint="see docs/mirrors.md") from None


class _Layers(BaseSettings, Settings):
    """`Settings` as pydantic-settings merges them, and `endpoints`, which replaces the list of mirrors."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="_",
        env_nested_max_split=1,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
    )

    endpoints: Annotated[tuple[str, ...], NoDecode] = ()

    @field_validator("endpoints", mode="before")
    @classmethod
    def _split_endpoints(cls, value: Any) -> Any:
        return split_list(value, ",")


def _layers(of_files: Sequence[dict[str, Any]], *, flag_endpoints: bool) -> type[_Layers]:
    """The layers of one run, with the values of its settings files."""

    class Layers(_Layers):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            below = (_of_other_programs(), *of_files, _default_folders())
            return (init_settings, env_settings, *(InitSettingsSource(settings_cls, values) for values in below))

        @model_validator(mode="before")
        @classmethod
        def _complete(cls, values: dict[str, Any]) -> dict[str, Any]:
            _set(values, "origin.state_dir", values["state_dir"])
            daemon = values.get("daemon")
            if not isinstance(daemon, dict) or "socket" not in daemon:
                _set(values, "daemon.socket", _default_socket(Path(values["state_dir"])))
            endpoints = split_list(values.pop("endpoints", ()), ",")
            values["mirrors"] = mirrors_in_order(values.get("mirrors"), endpoints, final=flag_endpoints)
            return values

    return Layers


def _of_other_programs() -> dict[str, Any]:
    """What the variables that are not of this program set."""
    env = os.environ
    folder = env.get("HF_HUB_CACHE") or env.get(old_cache_variable(env))
    values: dict[str, Any] = {"cache_dir": folder} if folder else {}
    if "HF_HUB_OFFLINE" in env:
        values["offline"] = env["HF_HUB_OFFLINE"].upper() in TRUE
    if "HF_HUB_DISABLE_PROGRESS_BARS" in env:
        values["progress"] = env["HF_HUB_DISABLE_PROGRESS_BARS"].upper() not in TRUE
    proxies, direct = proxies_of(env)
    for scheme, proxy in proxies.items():
        _set(values, f"origin.{scheme}_proxy", proxy)
    if direct:
        _set(values, "origin.no_proxy", direct)
    return values


def _default_folders() -> dict[str, Any]:
    state = _xdg_folder("XDG_STATE_HOME") or user_home() / ".local/state"
    return {"cache_dir": hf_home() / "hub", "state_dir": state / "p2pmodel"}


def _default_socket(state_dir: Path) -> Path:
    return (_xdg_folder("XDG_RUNTIME_DIR") or state_dir) / "p2pmodel.sock"


def _xdg_folder(variable: str) -> Path | None:
    """The folder that `variable` names. A relative path is ignored, as the XDG Base Directory Specification says: it
    would be another one in every working directory."""
    folder = Path(os.environ.get(variable, ""))
    return folder if folder.is_absolute() else None


def _nested(flags: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in flags.items():
        _set(values, key, value)
    return values


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        nested = values.setdefault(section, {})
        if not isinstance(nested, dict):
            raise InvalidInput(f"setting {section}: expected a table", hint=HINT)
        values = nested
    values[last] = value


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
"""Variables of other programs that change a default, by setting."""
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
    ignored = [name for name in ("XDG_STATE_HOME", "XDG_RUNTIME_DIR") if _xdg_folder(name) is None]
    return _first_set(*(name for name in _BELOW_FILE.get(key, ()) if name not in ignored)) or DEFAULT


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
