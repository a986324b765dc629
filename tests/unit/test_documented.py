"""docs/reference/settings.md names every setting and every environment variable that the program reads."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from p2pmodel.config.settings import MirrorSettings, Settings
from p2pmodel.config.sources import variable_of

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference/settings.md"
SECTION = REFERENCE.read_text(encoding="utf-8") if REFERENCE.exists() else ""
TROUBLESHOOTING = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
VARIABLE = re.compile(r"""["']((?:P2PMODEL|HF|XDG)_[A-Z_]+)["']""")
ELSEWHERE = {"P2PMODEL_DEBUG"}
"""Described where it is of use, in docs/troubleshooting.md."""

pytestmark = pytest.mark.skipif(not SECTION, reason="docs/reference/settings.md is not generated yet")

DERIVED = {"origin.state_dir"}
"""Follow another setting, and are not for users."""


def keys(part: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in part.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from keys(inner, f"{prefix}{name}.")
        else:
            yield prefix + name


def variables() -> set[str]:
    """The environment variables that are read anywhere in the package."""
    return {name for path in (ROOT / "p2pmodel").rglob("*.py") for name in VARIABLE.findall(path.read_text())}


def test_there_is_something_to_document() -> None:
    assert {"cache_dir", "swarm.listen", "origin.patience"} <= set(keys(Settings))
    assert {"HF_TOKEN", "HF_ENDPOINT", "P2PMODEL_CONFIG"} <= variables()
    assert SECTION


@pytest.mark.parametrize("key", sorted(set(keys(Settings)) - DERIVED))
def test_every_setting_has_a_row(key: str) -> None:
    assert re.search(rf"^\| `{re.escape(key)}` \|", SECTION, re.MULTILINE), f"docs/reference/settings.md lacks {key}"


@pytest.mark.parametrize("key", sorted(keys(MirrorSettings)))
def test_every_key_of_a_mirror_is_named(key: str) -> None:
    assert re.search(rf"`{key}`|^{key} =", SECTION, re.MULTILINE), f"docs/reference/settings.md lacks mirrors.{key}"


@pytest.mark.parametrize("name", sorted(variables()))
def test_every_variable_is_named(name: str) -> None:
    where = TROUBLESHOOTING if name in ELSEWHERE else SECTION
    assert re.search(rf"\b{name}\b", where), f"docs/reference/settings.md lacks {name}"


@pytest.mark.parametrize("key", sorted(set(keys(Settings)) - DERIVED - {"mirrors"}))
def test_a_variable_stands_in_the_row_of_its_setting(key: str) -> None:
    row = next(line for line in SECTION.splitlines() if line.startswith(f"| `{key}` |"))
    assert f"`{variable_of(key)}`" in row


def test_nothing_is_documented_that_does_not_exist() -> None:
    rows = re.findall(r"^\| `([a-z_.]+)` \|", SECTION, re.MULTILINE)
    assert set(rows) <= set(keys(Settings))
    named = set(re.findall(r"`((?:P2PMODEL|HF)_[A-Z_]+)`", SECTION))
    assert named <= variables() | {"HF_HOME"} | {variable_of(key) for key in keys(Settings)}
