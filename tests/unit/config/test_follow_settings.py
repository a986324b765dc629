"""[[follow]] tables: what they may contain, and what is said of wrong ones."""

import os
from pathlib import Path
from unittest.mock import patch

import pytest

from p2pmodel.config.settings import Settings
from p2pmodel.config.sources import load_settings
from p2pmodel.errors import InvalidInput


def load(tmp_path: Path, toml: str) -> Settings:
    config = tmp_path / "p2pmodel.toml"
    config.write_text(toml)
    with patch.dict(os.environ, {"HOME": str(tmp_path)}, clear=True):
        return load_settings(config=config)


def test_a_table_has_what_to_download_and_when(tmp_path: Path):
    text = """
    [[follow]]
    repo = "Qwen/Qwen3-VL-8B-Instruct"
    revision = "^1.2"
    include = ["*.json", "*.safetensors"]
    window = "mon-fri 22:00-06:00"
    zone = "Asia/Shanghai"
    [[follow]]
    repo = "org/*"
    revision = "release-*"
    """
    first, second = load(tmp_path, text).follow
    assert (first.name, first.include, first.is_pattern) == (
        "Qwen/Qwen3-VL-8B-Instruct@^1.2",
        ("*.json", "*.safetensors"),
        False,
    )
    assert first.hours.zone is not None
    assert (second.is_pattern, second.hours.next_change(0.0)) == (True, None)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('repo = "a b"', "follow.0.repo: 'a b' is not a repository id"),
        ('repo = "org/*\\n"', "is not a pattern"),
        ('repo = "org/m"\nrevision = "a..b"', "'a..b' is not a revision"),
        ('repo = "org/m"\nwindow = "22-06"', "follow.0.window: '22-06' is not a time of day"),
        ('repo = "org/m"\nwindow = "22:00-22:00"', "begins when it ends"),
        ('repo = "org/m"\nwindow = "22:00-06:00"\nzone = "Shanghai"', "'Shanghai' is not a known time zone"),
        ('repo = "org/m"\nzone = "UTC"', "zone is the time zone of window, which is missing"),
        ('repo = "org/m"\ninterval = 1', "follow.0.interval"),
        ('repo = "org/m"\nwindows = "22:00-06:00"', "there is no such setting, window is the nearest"),
        ("revision = 'main'", "follow.0.repo: it is missing"),
    ],
)
def test_a_wrong_table_is_one_line(tmp_path: Path, line: str, said: str):
    with pytest.raises(InvalidInput) as caught:
        load(tmp_path, f"[[follow]]\n{line}\n")
    assert said in caught.value.what
    assert "\n" not in caught.value.what


def test_the_nearest_key_of_a_nested_table_is_named(tmp_path: Path):
    with pytest.raises(InvalidInput, match="there is no such setting, subjects is the nearest"):
        load(tmp_path, "[[access.rules]]\nsubject = ['anyone']\n")
