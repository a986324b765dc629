"""The shape of the package: names of modules and classes, lengths of functions and modules."""

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "p2pmodel").rglob("*.py"))
NOUNS = {"hashing", "listing", "loading", "parsing", "publishing", "seeding", "serving", "staging"}
"""Names in -ing that are common nouns of the field."""
LONGEST_FUNCTION = 60
LONGEST_MODULE = 400


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_two_modules_have_a_class_of_the_same_name() -> None:
    modules = defaultdict(set)
    for path in MODULES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                modules[node.name.lstrip("_")].add(name(path))
    assert {each: sorted(found) for each, found in modules.items() if len(found) > 1} == {}


def test_modules_and_packages_are_named_by_nouns() -> None:
    stems = {path.parent.name if path.stem == "__init__" else path.stem: name(path) for path in MODULES}
    assert {stem: path for stem, path in stems.items() if stem.endswith("ing") and stem not in NOUNS} == {}


def test_every_module_has_a_docstring() -> None:
    assert [name(path) for path in MODULES if not ast.get_docstring(tree(path))] == []


def test_functions_are_short() -> None:
    lengths = {
        f"{name(path)}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {where: length for where, length in lengths.items() if length > LONGEST_FUNCTION} == {}


def test_modules_are_short() -> None:
    lengths = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {path: length for path, length in lengths.items() if length > LONGEST_MODULE} == {}
