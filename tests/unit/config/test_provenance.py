"""Where settings come from: each layer is named, and no secret is shown."""

from pathlib import Path
from typing import Any

import pytest

from p2pmodel.config.provenance import settings_values
from p2pmodel.config.settings import Settings
from p2pmodel.config.sources import load_settings

FILE = """
coordinators = ["http://10.0.0.1:6969"]
[[mirrors]]
name = "own"
endpoint = "https://hub.example"
token = "very-secret-token"
[swarm]
zone = "a"
peer_timeout = 7
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_ENDPOINT", "HF_HUB_CACHE", "XDG_STATE_HOME", "P2PMODEL_ENDPOINTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "p2pmodel.toml"
    path.touch(0o600)
    path.write_text(FILE)
    return path


def found(file: Path | None, **flags: Any) -> dict[str, tuple[Any, str]]:
    settings = load_settings(config=file, flags=flags)
    return {each.key: (each.value, each.source) for each in settings_values(settings, file, flags)}


def test_each_layer_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PMODEL_SWARM_ZONE", "b")
    monkeypatch.setenv("HF_HUB_CACHE", "/cache")
    settings = found(file, log_level="error")
    assert settings["log_level"] == ("error", "command line")
    assert settings["swarm.zone"] == ("b", "P2PMODEL_SWARM_ZONE")
    assert settings["swarm.peer_timeout"] == (7.0, str(file))
    assert settings["cache_dir"] == ("/cache", "HF_HUB_CACHE")
    assert settings["swarm.trust"] == ("mirrors", "default")


def test_variables_below_the_file_do_not_override_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://other.example")
    assert found(file)["mirrors"][1] == str(file)
    assert found(None)["mirrors"][1] == "HF_ENDPOINT"
    monkeypatch.setenv("P2PMODEL_ENDPOINTS", "own")
    assert found(file)["mirrors"][1] == "P2PMODEL_ENDPOINTS"
    assert found(file, endpoints=("own",))["mirrors"][1] == "command line"


def test_of_a_secret_only_that_it_is_set(file: Path) -> None:
    settings = found(file)
    assert settings["mirrors"][0][0]["token"] == "(set)"
    assert "very-secret-token" not in repr(settings)


def test_every_setting_is_there_once(file: Path) -> None:
    keys = list(found(file))
    sections = [name for name in Settings.model_fields if any(key.startswith(f"{name}.") for key in keys)]
    assert {key.partition(".")[0] for key in keys} == set(Settings.model_fields)
    assert len(sections) > 5
