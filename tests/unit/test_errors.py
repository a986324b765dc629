"""The error tree: one line, stable exit codes, and messages for errors of the operating system."""

import ast
import errno
from pathlib import Path

import pytest

from p2pmodel import errors
from p2pmodel.errors import LocalResource, NoSpace, P2PModelError, WrongBytes
from p2pmodel.os_errors import translate


def tree(root: type[P2PModelError]) -> list[type[P2PModelError]]:
    return [root] + [found for child in root.__subclasses__() for found in tree(child)]


def test_every_error_has_an_exit_code_and_a_code_of_its_own():
    kinds = [kind for kind in tree(P2PModelError) if kind.__module__ == errors.__name__]
    assert len({kind.code for kind in kinds}) == len(kinds)
    assert all(1 <= kind.exit_code <= 8 or kind.exit_code == 130 for kind in kinds)
    assert all(400 <= kind.http_status < 600 for kind in kinds)


def test_exit_codes_are_stable():
    documented = {"InvalidInput": 2, "NotFound": 3, "AccessDenied": 4, "IntegrityError": 5, "Unavailable": 6}
    documented |= {"LocalResource": 7, "Interrupted": 130, "P2PModelError": 1}
    assert {name: getattr(errors, name).exit_code for name in documented} == documented


def test_a_message_is_one_line_with_a_hint():
    assert str(P2PModelError("a\nb", hint="do c")) == "a b; do c"
    assert "expected x, got y" in str(WrongBytes("mirror m", "f", "x", "y"))


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, NoSpace),
        (errno.EACCES, LocalResource),
        (errno.EADDRINUSE, LocalResource),
        (errno.EIO, LocalResource),
    ],
)
def test_os_errors_are_translated(number: int, kind: type[P2PModelError]):
    assert type(translate(OSError(number, "words", "/some/file"))) is kind


def test_an_unexpected_error_names_itself():
    assert "internal error: KeyError" in str(translate(KeyError("x")))


ROOT = Path(__file__).parents[2]
KINDS = {kind.__name__ for kind in tree(P2PModelError) if kind.__module__ == errors.__name__}
OWN = {"p2pmodel.client", "p2pmodel.cluster.launcher"}
"""Rooms with errors that no server sends: a daemon that is not there, a host that is not reached."""


def test_errors_that_servers_send_are_restored_whatever_a_client_imports() -> None:
    defined = {}
    for path in sorted((ROOT / "p2pmodel").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and any(
                isinstance(base, ast.Name) and base.id in KINDS for base in node.bases
            ):
                defined[node.name] = module
    assert {"UnknownCredential", "HostRefused"} <= defined.keys()
    assert {module for module in defined.values() if module != "p2pmodel.errors"} <= OWN
