"""`p2pmodel config show`: settings that are not defaults, with their sources."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from p2pmodel.cli.config import config, variables_of
from p2pmodel.core.progress.views import NodeView
from p2pmodel.errors import Unavailable


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_ENDPOINT", "HF_HUB_CACHE", "HF_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def invoke(*arguments: str | Path) -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(config, words, standalone_mode=False, catch_exceptions=False)


def test_settings_that_differ_from_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "my.toml"
    file.touch(0o600)
    file.write_text(
        '[swarm]\nzone = "rack-7"\n[[mirrors]]\nname = "own"\nendpoint = "https://h.example"\ntoken = "s3"\n'
    )
    monkeypatch.setenv("P2PMODEL_SWARM_UPLOAD_LIMIT", "20MB")
    lines = [line.split() for line in invoke("show", "--config", file).stdout.splitlines()]
    assert ["swarm.zone", "rack-7", str(file)] in lines
    assert ["swarm.upload_limit", "20000000", "P2PMODEL_SWARM_UPLOAD_LIMIT"] in lines
    assert ["mirrors[0].token", "(set)", str(file)] in lines
    assert not any(line[0] == "swarm.trust" for line in lines)
    [zone] = [
        each
        for each in json.loads(invoke("show", "--config", file, "--json").stdout)["settings"]
        if "zone" in each["key"]
    ]
    assert zone == {"key": "swarm.zone", "value": "rack-7", "source": str(file)}


def test_all_settings() -> None:
    assert "swarm.trust" in invoke("show", "--all").stdout
    shown = invoke("show")
    assert shown.stdout == ""
    assert "--all" in shown.stderr


URL = "http://127.0.0.1:8092"


def node(cache: Path, hub: str | None = URL) -> NodeView:
    return NodeView("1", str(cache), "127.0.0.1:1", 2, hub)


def test_the_cache_is_named_if_it_is_writable(tmp_path: Path) -> None:
    told = variables_of(node(tmp_path))
    assert (told["HF_ENDPOINT"], told["HF_HUB_CACHE"], told["HF_HUB_DISABLE_XET"]) == (URL, str(tmp_path), "1")
    assert told["HF_HUB_DISABLE_UPDATE_CHECK"] == "1", "`hf` asks PyPI otherwise"
    assert "HF_HUB_CACHE" not in variables_of(node(tmp_path / "of-somebody-else"))


def test_a_daemon_without_an_endpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="hub_listen"):
        variables_of(node(tmp_path, hub=None))
