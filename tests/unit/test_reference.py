"""The pages of docs/reference match the code, and name every setting and environment variable."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from scripts.documentation import cli, errors, settings, write
from scripts.documentation.markdown import prose, table
from scripts.documentation.samples import sample_of

ROOT = Path(__file__).parents[2]
VARIABLE = re.compile(r"""["']((?:P2PMODEL|HF|XDG)_[A-Z_]+)["']""")


def variables() -> set[str]:
    """The environment variables that are read anywhere in the package."""
    return {name for path in (ROOT / "p2pmodel").rglob("*.py") for name in VARIABLE.findall(path.read_text())}


@pytest.mark.parametrize("name", sorted(write.PAGES))
def test_a_page_matches_the_code(name: str) -> None:
    assert write.path_of(name).read_text(encoding="utf-8") == write.PAGES[name](), "run scripts/reference"


def test_pages_do_not_depend_on_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = cli.text(), settings.text()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert (cli.text(), settings.text()) == before
    assert str(Path.home()) not in "".join(write.path_of(name).read_text(encoding="utf-8") for name in write.PAGES)


def test_a_page_that_differs_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(write, "FOLDER", tmp_path)
    monkeypatch.setattr(write, "PAGES", {"errors": errors.text, "settings": settings.text})
    (tmp_path / "errors.md").write_text(errors.text() + "more\n")
    assert write.differing() == ["errors", "settings"]
    write.path_of("errors").write_text(errors.text())
    assert write.differing() == ["settings"]


def test_every_variable_that_is_read_is_described() -> None:
    assert {"HF_TOKEN", "HF_ENDPOINT", "P2PMODEL_CONFIG"} <= variables()
    described = set(re.findall(r"`((?:P2PMODEL|HF|XDG)_[A-Z_]+)`", settings.text()))
    assert variables() <= described


def test_every_setting_has_a_meaning() -> None:
    without = [key for key, _, meaning in settings.all_keys() if not meaning]
    assert not without


def test_text_with_angle_brackets_and_pipes_stays_text() -> None:
    assert prose("blobs/<etag> and `<etag>`") == "blobs/&lt;etag> and `<etag>`"
    assert table(("a",), [("x|y\nz",)]).splitlines()[-1] == "| x\\|y z |"


def test_samples_have_every_field() -> None:
    @dataclass(frozen=True)
    class Inner:
        state: Literal["up", "down"]

    @dataclass(frozen=True)
    class Outer:
        inner: tuple[Inner, ...]
        limit: int | None
        by_name: dict[str, float]

    Inner.__annotations__ = {"state": Literal["up", "down"]}
    Outer.__annotations__ = {"inner": tuple[Inner, ...], "limit": int | None, "by_name": dict[str, float]}
    assert sample_of(Outer) == Outer((Inner("up"),), 1, {"x": 1.0})
    with pytest.raises(TypeError, match="no sample"):
        sample_of(object)
