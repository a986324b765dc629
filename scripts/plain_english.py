#!/usr/bin/env python3
"""Check the language of docstrings, comments, help texts, errors, notes and documents.

Usage: scripts/plain_english.py [PATH...]    Default: the paths in `tool.plain_english.held` of pyproject.toml.
Prints FILE:LINE for each finding and exits with 1 if there is one.

- Docstrings, comments, and string arguments of click options, error classes and notes use none of WORDS: a thing is the
  subject of a sentence, not a person.
- Names of test functions and messages of assertions use none of them either.
- The help text of a click option is one line and ends with a period.
- Markdown documents use none of WORDS outside of code blocks.
"""

import ast
import io
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORDS = re.compile(r"\b(who|whom|whose|whoever|whomever|nobody|somebody|anybody|everybody)\b", re.IGNORECASE)
TEXT_CALLS = {"note", "info", "warning", "on_note", "echo", "Note", "BadParameter", "UsageError"}
"""Functions with string arguments for the user, in addition to the error classes."""
TEXT_KEYWORDS = {"help", "hint", "short_help", "epilog", "description", "summary"}

Finding = tuple[Path, int, str]


def main(paths: list[str]) -> int:
    """Print the findings of `paths`, or of the held paths; returns the exit code."""
    found = [finding for path in paths or held() for finding in findings(ROOT / path)]
    for path, line, problem in sorted(set(found)):
        print(f"{path.relative_to(ROOT)}:{line}: {problem}")
    return 1 if found else 0


def held() -> list[str]:
    """The paths that are checked by default."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    paths: list[str] = settings["tool"]["plain_english"]["held"]
    return paths


def findings(path: Path) -> Iterator[Finding]:
    """The findings of a file, or of all Python and Markdown files in a folder."""
    if not path.exists():
        yield path, 1, "does not exist, but is held"
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    for file in files:
        if file.suffix == ".md":
            yield from _document(file)
        elif file.suffix == ".py":
            yield from _module(file)


def _document(file: Path) -> Iterator[Finding]:
    in_code = False
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code:
            yield from _words(file, number, line)


def _module(file: Path) -> Iterator[Finding]:
    text = file.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield from _words(file, token.start[0], token.string)
    errors = _error_classes()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from _words(file, node.lineno, node.value.value)
        elif isinstance(node, ast.Call):
            yield from _call(file, node, errors)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield from _words(file, node.lineno, node.name.replace("_", " "))
        elif isinstance(node, ast.Assert) and node.msg:
            yield from _strings(file, node.msg)


def _call(file: Path, call: ast.Call, errors: set[str]) -> Iterator[Finding]:
    name = _name(call.func)
    if name in errors | TEXT_CALLS:
        for argument in call.args:
            yield from _strings(file, argument)
    for keyword in call.keywords:
        if keyword.arg in TEXT_KEYWORDS:
            yield from _strings(file, keyword.value)
        if keyword.arg == "help" and name in ("option", "Option") and isinstance(keyword.value, ast.Constant):
            help_text = str(keyword.value.value)
            if "\n" in help_text or not help_text.endswith("."):
                yield file, keyword.value.lineno, "a help text is one line and ends with a period"


def _strings(file: Path, node: ast.AST) -> Iterator[Finding]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield from _words(file, part.lineno, part.value)


def _words(file: Path, line: int, text: str) -> Iterator[Finding]:
    for offset, each in enumerate(text.splitlines()):
        for match in WORDS.finditer(each):
            yield file, line + offset, f"'{match[0]}': name the thing instead of a person"


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _error_classes() -> set[str]:
    tree = ast.parse((ROOT / "p2pmodel" / "errors.py").read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.ClassDef)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
