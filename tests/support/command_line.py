"""Run the command line in this process, without the cost of starting a Python interpreter."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from p2pmodel.cli import main
from tests.support.no_mirror import NO_MIRROR


@dataclass(frozen=True)
class Outcome:
    """A command that has ended."""

    code: int
    out: str
    err: str


class CommandLine:
    """`cli("fetch", "org/model", HF_TOKEN="x")` in `home`, a hub cache below it, and none of the caller's settings."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self.hub = home / "hub"
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *args: str | Path, **env: str) -> Outcome:
        with self._monkeypatch.context() as patch:
            patch.chdir(self.home)
            patch.setattr(sys, "argv", ["p2pmodel", *map(str, args)])
            for name in [n for n in os.environ if n.startswith(("HF_", "P2PMODEL_", "XDG_"))]:
                patch.delenv(name)
            own: Mapping[str, str] = {"HOME": str(self.home), "HF_HOME": str(self.home), "HF_HUB_CACHE": str(self.hub)}
            for name, value in {**own, **NO_MIRROR, **env}.items():
                patch.setenv(name, value)
            self._capsys.readouterr()
            with pytest.raises(SystemExit) as ended:
                main()
        said = self._capsys.readouterr()
        return Outcome(int(ended.value.code or 0), said.out, said.err)

    def ok(self, *args: str | Path, **env: str) -> str:
        """Run a command that must succeed: what it printed, without the line's end."""
        done = self(*args, **env)
        assert done.code == 0, (args, done)
        assert done.out.endswith("\n")
        return done.out[:-1]

    def refuses(self, code: int, *args: str | Path, **env: str) -> str:
        """Run a command that must end with `code`, empty stdout and one line on stderr; returns that line."""
        done = self(*args, **env)
        assert (done.code, done.out) == (code, ""), (args, done)
        assert done.err.startswith("p2pmodel: "), done.err
        assert done.err.count("\n") == 1, done.err
        line = done.err.rstrip("\n")
        assert line.isprintable(), line
        return line


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """The command line in the test's own directory."""
    return CommandLine(tmp_path, monkeypatch, capsys)
