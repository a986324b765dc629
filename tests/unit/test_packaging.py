"""The places that describe the distribution agree, and the distribution is complete."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
BUILT = {".py", ".pyc"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_python_versions_agree() -> None:
    first, beyond = map(int, re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups())
    classified = [int(minor) for each in PROJECT["classifiers"] for minor in re.findall(r":: 3\.(\d+)$", each)]
    assert classified == list(range(first, beyond))
    environment = (ROOT / "scripts/environment").read_text(encoding="utf-8")
    assert f"(3, {first}) <= sys.version_info < (3, {beyond})" in environment
    assert f"Python 3.{first}-3.{beyond - 1}" in environment
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py3{first}"


def test_every_file_of_the_package_is_in_the_wheel() -> None:
    package = ROOT / "p2pmodel"
    listed = {
        path for glob in PYPROJECT["tool"]["setuptools"]["package-data"]["p2pmodel"] for path in package.glob(glob)
    }
    others = {path for path in package.rglob("*") if path.is_file() and path.suffix not in BUILT}
    assert sorted(others - listed) == []
    modules = {path.parent for path in package.rglob("*.py")}
    assert sorted(folder for folder in modules if not (folder / "__init__.py").exists()) == []


def test_every_direct_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {normal(line.partition("==")[0]) for line in lines if "==" in line}
    wanted = [
        *PROJECT["dependencies"],
        *(each for extra in PROJECT["optional-dependencies"].values() for each in extra),
    ]
    assert [each for each in wanted if normal(re.match(r"[\w.-]+", each)[0]) not in pinned] == []
