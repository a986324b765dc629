"""Home folders in paths: a home folder that is not known is an error with the path."""

from pathlib import Path

import pytest

from p2pmodel.core.files.home import expanded, home
from p2pmodel.errors import InvalidInput
from tests.support.command_line import CommandLine


def _no_home() -> None:
    raise RuntimeError("Could not determine home directory.")


def test_the_home_folder_of_a_user_that_does_not_exist_is_an_error():
    with pytest.raises(InvalidInput, match="~no-such-user/hub"):
        expanded(Path("~no-such-user/hub"))


def test_the_home_folder_of_a_user_without_one_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Path, "home", _no_home)
    with pytest.raises(InvalidInput, match="set HOME"):
        home()


@pytest.mark.parametrize("option", ["--cache-dir", "--local-dir"])
def test_commands_name_the_path_without_a_home_folder(cli: CommandLine, option: str):
    assert "~no-such-user/x" in cli.refuses(2, "fetch", "org/model", option, "~no-such-user/x")


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE", "P2PMODEL_CACHE_DIR", "P2PMODEL_CONFIG"])
def test_variables_name_the_path_without_a_home_folder(cli: CommandLine, variable: str):
    given = {"HF_HUB_CACHE": ""} | {variable: "~no-such-user/x"}
    assert "~no-such-user/x" in cli.refuses(2, "ls", **given)
