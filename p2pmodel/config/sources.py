"""The layers settings are read from, once: defaults < settings file < cluster's settings file < environment < flags.

Every setting `section.key` has the environment variable `P2PMODEL_SECTION_KEY`. The variables of the Hugging Face
clients stand between: HF_HUB_CACHE, HF_HUB_OFFLINE, HF_HUB_DISABLE_PROGRESS_BARS; `mirrors` and `old_variables` read
the others. So do HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from p2pmodel.config.complaints import HINT, PREFIX, GivenSettings, complaint
from p2pmodel.config.mirrors import TRUE, hf_home, mirrors_in_order, user_home
from p2pmodel.config.old_variables import old_cache_variable
from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.config.sections.section import split_list
from p2pmodel.config.settings import Settings
from p2pmodel.config.settings_file import settings_files
from p2pmodel.core.network.proxies import proxies_of
from p2pmodel.errors import InvalidInput


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
    places = GivenSettings(frozenset(given), files)
    layers = _layers([values for _, values in files], flag_endpoints="endpoints" in given)
    try:
        loaded = layers(**_nested(given))
        settings = Settings.model_validate({name: getattr(loaded, name) for name in Settings.model_fields})
        wrong = complaint(None, places)
    except ValidationError as error:
        wrong = complaint(error, places)
    except SettingsError as error:
        raise InvalidInput(f"environment: {error}", hint=HINT) from None
    if wrong:
        raise wrong
    return settings


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
    state = os.environ.get("XDG_STATE_HOME") or user_home() / ".local/state"
    return {"cache_dir": hf_home() / "hub", "state_dir": Path(state) / "p2pmodel"}


def _default_socket(state_dir: Path) -> Path:
    return Path(os.environ.get("XDG_RUNTIME_DIR") or state_dir) / "p2pmodel.sock"


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
