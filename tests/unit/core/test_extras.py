"""Optional libraries by the extra that installs them."""

import sys
import tomllib
from pathlib import Path

import pytest

from p2pmodel.core.extras import EXTRAS, check_extra
from p2pmodel.errors import LocalResource

PROJECT = Path(__file__).parents[3] / "pyproject.toml"


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "plot", ("sys", "matplotlib_of_none"))
    with pytest.raises(LocalResource) as raised:
        check_extra("plot", "--plot")
    expected = "--plot needs matplotlib_of_none, which is not installed; pip install 'p2pmodel[plot]'"
    assert str(raised.value) == expected


def test_a_library_that_is_there_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "plot", ("this",))
    sys.modules.pop("this", None)
    check_extra("plot", "--plot")
    assert "this" not in sys.modules


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_project_has_the_extra(extra: str) -> None:
    assert extra in tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]
