"""Docstrings of attributes: strings that follow an annotated attribute in a class body. Python does not keep them."""

import ast
import inspect
import textwrap
from functools import cache
from pathlib import Path

import p2pmodel
from scripts.documentation.markdown import flat


def meanings(kind: type) -> dict[str, str]:
    """The docstring of each attribute of `kind` and of the classes it inherits from."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if each.__module__.startswith("p2pmodel"):
            found |= _meanings(ast.parse(textwrap.dedent(inspect.getsource(each))).body[0])
    return found


@cache
def meanings_by_class() -> dict[str, dict[str, str]]:
    """The attribute docstrings of every class of the package, by class name."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(Path(p2pmodel.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, {}).update(_meanings(node))
    return found


def _meanings(node: ast.stmt) -> dict[str, str]:
    assert isinstance(node, ast.ClassDef)
    found = {}
    for statement, following in zip(node.body, node.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            text = following.value if isinstance(following, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                found[statement.target.id] = flat(text.value)
    return found
