"""Types of options: empty paths and numbers without an end are refused in every command."""

import importlib.util

import click
import pytest

from p2pmodel.cli.option_types import LARGEST, Count, Number, PathName
from tests.support.command_line import CommandLine
from tests.unit.cli.test_help import ALL


@pytest.mark.parametrize("path", ALL)
def test_paths_and_numbers_have_the_types_that_refuse_unusable_values(path: str) -> None:
    own = {click.Path: PathName, click.types.FloatParamType: Number, click.types.IntParamType: Count}
    wrong = [
        param.name
        for param in ALL[path].params
        for general, narrow in own.items()
        if isinstance(param.type, general) and not isinstance(param.type, narrow)
    ]
    assert wrong == []


@pytest.mark.parametrize("option", ["--cache-dir", "--config", "--local-dir", "--image"])
def test_an_empty_path_is_not_the_current_folder(cli: CommandLine, option: str) -> None:
    assert "the path is empty" in cli.refuses(2, "fetch", "org/model", option, "")


def test_an_empty_argument_is_not_the_current_folder(cli: CommandLine) -> None:
    assert "the path is empty" in cli.refuses(2, "import", "", "org/model")


def test_an_empty_revision_is_not_the_default_branch(cli: CommandLine) -> None:
    assert "--revision is empty" in cli.refuses(2, "fetch", "org/model", "--revision", "")


@pytest.mark.parametrize("seconds", ["nan", "inf", "-inf", "1e400"])
def test_a_number_is_finite(cli: CommandLine, seconds: str) -> None:
    assert "--seed-time" in cli.refuses(2, "fetch", "org/model", "--seed-time", seconds)


def test_a_whole_number_has_at_most_64_bits(cli: CommandLine) -> None:
    assert "too large" in cli.refuses(2, "audit", "show", "-n", str(LARGEST + 1))


@pytest.mark.parametrize("url", ["http://[::1", "s3://[::1", "http://[]", "http://x:99999"])
def test_a_malformed_url_of_a_mirror_is_named(cli: CommandLine, url: str) -> None:
    line = cli.refuses(2, "fetch", "org/model", "--endpoint", url)
    assert url in line
    assert "Invalid" not in line


@pytest.mark.parametrize("target", ["", "file", "file/below"])
def test_an_export_names_a_target_that_is_no_folder_before_it_downloads(cli: CommandLine, target: str) -> None:
    (cli.home / "file").write_text("")
    assert "folder" in cli.refuses(2, "mirror", "export", "org/model", target)


def test_an_export_to_a_bucket_names_the_missing_library_before_it_downloads(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "boto3" else found(name))
    assert "boto3" in cli.refuses(7, "mirror", "export", "org/model", "s3://bucket/models")
