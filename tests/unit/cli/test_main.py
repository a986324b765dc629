"""The outermost handler: every exception of a verb is one line on stderr and a stable exit code."""

import errno
import signal
import sys
from collections.abc import Callable
from types import ModuleType

import click
import pytest

from p2pmodel import errors
from p2pmodel.cli import main, verbs
from p2pmodel.errors import P2PModelError

EXIT_CODES = {
    errors.P2PModelError: 1,
    errors.InvalidInput: 2,
    errors.TooSlow: 2,
    errors.InvalidField: 2,
    errors.UnsupportedField: 2,
    errors.PromptTooLong: 2,
    errors.ModelNotFound: 3,
    errors.ModelLoading: 6,
    errors.UnsupportedContent: 2,
    errors.UpgradeRequired: 2,
    errors.NotFound: 3,
    errors.RepoNotFound: 3,
    errors.RevisionNotFound: 3,
    errors.EntryNotFound: 3,
    errors.AccessDenied: 4,
    errors.GatedRepo: 4,
    errors.GatedLogin: 4,
    errors.UnknownCredential: 4,
    errors.Untrusted: 5,
    errors.RefusedContent: 4,
    errors.Forbidden: 4,
    errors.Conflict: 1,
    errors.IntegrityError: 5,
    errors.BadTorrent: 5,
    errors.WrongBytes: 5,
    errors.WrongTorrent: 5,
    errors.Contradicted: 5,
    errors.UpgradeRequired: 2,
    errors.Unavailable: 6,
    errors.Unconfirmed: 6,
    errors.NotYet: 6,
    errors.Offline: 6,
    errors.TooManyRequests: 6,
    errors.LocalResource: 7,
    errors.NoSpace: 7,
    errors.PartialCluster: 8,
    errors.PartialUpdate: 8,
    errors.Interrupted: 130,
}

Run = Callable[[BaseException], tuple[int, str]]


def main_raising(error: BaseException) -> None:
    """`main` with a verb that raises `error`."""

    def callback() -> None:
        raise error

    module = ModuleType("raising")
    module.raising = click.Command("raising", callback=callback)  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "raising", module)
        patch.setitem(verbs._VERBS, "raising", ("raising:raising", ""))
        patch.setattr(sys, "argv", ["p2pmodel", "raising"])
        main()


@pytest.fixture
def ends(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `main_raising`; returns the exit code and the text on stderr."""

    def run(error: BaseException) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main_raising(error)
        out, err = capsys.readouterr()
        assert out == ""
        return int(ended.value.code or 0), err

    return run


def every(kind: type[P2PModelError]) -> set[type[P2PModelError]]:
    return {kind}.union(*map(every, kind.__subclasses__()))


def test_every_kind_of_error_has_its_exit_code(ends: Run) -> None:
    assert {k for k in every(P2PModelError) if k.__module__ == "p2pmodel.errors"} == set(EXIT_CODES)
    for kind, code in EXIT_CODES.items():
        error = kind("m", "f", "a", "b") if kind is errors.WrongBytes else kind("it failed", hint="try again")
        assert ends(error) == (code, f"p2pmodel: {error}\n")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (errors.InvalidInput("two\nlines", hint="and\tmore"), 2, "two lines; and more"),
        (
            OSError(errno.ENOSPC, "No space", "/x"),
            7,
            "no space left on the disk at /x; free some space and run the same",
        ),
        (OSError(errno.EROFS, "Read-only file system", "/x"), 7, "not writable or readable at /x: Read-only file sys"),
        (OSError(errno.EADDRINUSE, "Address in use"), 7, "the address is already in use: Address in use; choose anoth"),
        (OSError(errno.EMFILE, "Too many"), 7, "too many open files; raise the limit (ulimit -n)"),
        (OSError(errno.EISDIR, "Is a directory", "/x"), 7, "is a directory at /x; check the path"),
        (OSError(errno.EIO, "Input/output error", "/x"), 7, "Input/output error at /x"),
        (RuntimeError("a\nb"), 1, "internal error: RuntimeError: a b; set P2PMODEL_DEBUG=1 for the traceback and rep"),
        (click.UsageError("You did it wrong."), 2, "You did it wrong; see 'p2pmodel"),
        (click.ClickException("no"), 1, "no"),
        (click.Abort(), 130, "interrupted"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_other_errors_are_translated(
    ends: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
) -> None:
    monkeypatch.delenv("P2PMODEL_DEBUG", raising=False)
    status, err = ends(error)
    assert status == code
    assert err.startswith(f"p2pmodel: {line}")
    assert err.count("\n") == 1


def test_debugging_prints_the_traceback_of_an_internal_error(ends: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PMODEL_DEBUG", "1")
    with pytest.raises(RuntimeError, match="a bug"):
        main_raising(RuntimeError("a bug"))
    assert ends(errors.NotFound("nothing"))[0] == 3


def test_no_signal_falsifies_the_exit_code_while_python_ends(ends: Run) -> None:
    ends(errors.NotFound("nothing"))
    assert signal.getsignal(signal.SIGINT) == signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
