"""What `p2pmodel fetch` hands to an inference engine once the snapshot is complete: its command line, or the process.

`--print-serve` prints the command that serves the snapshot; `--exec` runs one, which is checked before the download.
Where nothing is left to do, the command replaces this process: it has the same process id, so that signals, the
terminal and the exit code are its own. While this process serves, the command is a child of it.
"""

import asyncio
import functools
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

import click

from p2pmodel.cli.fetch.report import FetchReport
from p2pmodel.cli.signals import passed_on
from p2pmodel.config.mirrors import hf_home
from p2pmodel.core.content.names import printable
from p2pmodel.errors import InvalidInput, LocalResource
from p2pmodel.inference.model_facts import gpu_memory, model_facts
from p2pmodel.inference.serve_commands import ENGINES, InferenceEngine, ServeCommand, serve_command

_PLACE = re.compile(r"\{(path|repo|revision)\}")
_OF_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
"""Signals that Python ignores; a program expects their default."""


@dataclass(frozen=True, slots=True)
class EngineCommand:
    """The `words` of a command line, in which {path}, {repo} and {revision} stand for the snapshot."""

    words: tuple[str, ...]

    @classmethod
    def parse(cls, line: str) -> Self:
        """Split `line` as sh does, without variables and patterns. Raises InvalidInput, also if there is no such
        program."""
        try:
            words = tuple(shlex.split(line))
        except ValueError as error:
            raise InvalidInput(f"--exec: {str(error).lower()}", hint="check the quotes") from None
        if not words:
            raise InvalidInput("--exec: the command is empty", hint="give the program and its arguments")
        if shutil.which(words[0]) is None:
            raise InvalidInput(
                f"--exec: there is no program {printable(words[0])}",
                hint="check its name and PATH; for a line of the shell give: sh -c 'LINE'",
            )
        return cls(words)

    def filled(self, snapshot: Mapping[str, str]) -> list[str]:
        """The words, with the values of `snapshot` in place of their names in braces. Other braces stay."""
        return [_PLACE.sub(lambda place: snapshot[place[1]], word) for word in self.words]

    def replace_process(self, snapshot: Mapping[str, str], environment: Mapping[str, str]) -> NoReturn:
        """Run it in place of this process."""
        words = self.filled(snapshot)
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        for number in _OF_PYTHON:
            signal.signal(number, signal.SIG_DFL)
        try:
            os.execvpe(words[0], words, dict(environment))  # noqa: S606 - without a shell, on purpose
        except OSError as error:
            raise _not_run(words[0], error) from None

    async def run(self, snapshot: Mapping[str, str], environment: Mapping[str, str]) -> int:
        """Run it as a child to its end, with the signals that this process gets; its exit code, or 128 and the number
        of the signal that ended it. It is killed if the caller is cancelled."""
        words = self.filled(snapshot)
        try:
            child = await asyncio.create_subprocess_exec(*words, env=dict(environment))
        except OSError as error:
            raise _not_run(words[0], error) from None
        try:
            with passed_on(lambda number: _pass_on(child, number)):
                code = await child.wait()
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        return code if code >= 0 else 128 - code


def environment_of(path: Path, cache_dir: Path) -> dict[str, str]:
    """The environment of a command that uses the snapshot at `path` in the cache `cache_dir`, offline."""
    hub = {"HF_HOME": str(hf_home()), "HF_HUB_CACHE": str(cache_dir), "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **hub, "P2PMODEL_PATH": str(path)}


def _pass_on(child: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if number == signal.SIGINT and _typed():
        return
    with suppress(ProcessLookupError):
        child.send_signal(number)


def _typed() -> bool:
    """Whether Ctrl-C reaches the child too: the terminal sends it to all processes in the foreground."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError, AttributeError):  # no terminal, a closed or replaced stdin
        return False


def _not_run(program: str, error: OSError) -> LocalResource:
    return LocalResource(
        f"cannot run {printable(program)}: {error.strerror or error}",
        hint="the snapshot is complete; run the command yourself",
    )


def engine_options(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--exec` and `--print-serve`; the verb receives `command` and `engine`."""

    @click.option(
        "--exec",
        "command",
        metavar="COMMAND",
        help="Then run COMMAND, without a shell; {path}, {repo}, {revision} stand for the snapshot.",
    )
    @click.option(
        "--print-serve",
        "engine",
        type=click.Choice(ENGINES),
        help="Then print the command that serves the snapshot, in place of its path.",
    )
    @functools.wraps(verb)
    def wrapped(**options: Any) -> Any:
        return verb(**options)

    return wrapped


@dataclass(frozen=True, slots=True)
class HandOff:
    """What the command line asks for: the command to run, and the engine to print a command for."""

    command: EngineCommand | None
    engine: InferenceEngine | None
    cache_dir: Path

    @classmethod
    def of(cls, cache_dir: Path, flags: dict[str, Any]) -> Self:
        """From the flags of the verb. Raises InvalidInput for a command that cannot run, and for other options that
        do not go with it."""
        line, engine = flags["command"], flags["engine"]
        given = [name for name, value in (("--exec", line), ("--print-serve", engine)) if value is not None]
        loads = flags["load"] or flags["prompt"] is not None
        if len(given) == 2 or (given and loads):
            raise InvalidInput(
                f"{given[0]} and {given[1] if len(given) == 2 else '--load'} were given; they exclude each other",
                hint="give one of --exec, --print-serve and --load",
            )
        return cls(None if line is None else EngineCommand.parse(line), engine, cache_dir)

    @property
    def wanted(self) -> bool:
        """Whether anything is handed over on this machine."""
        return self.command is not None or self.engine is not None

    def serve_command(self, report: FetchReport) -> ServeCommand | None:
        """The command line to print; None if none is asked for. Blocks."""
        if self.engine is None:
            return None
        return serve_command(self.engine, model_facts(report.path, report.repo), gpu_memory())

    def replace_process(self, report: FetchReport) -> NoReturn:
        """Run the command in place of this process."""
        assert self.command is not None
        self.command.replace_process(_words_of(report), environment_of(report.path, self.cache_dir))

    async def run(self, report: FetchReport) -> int:
        """Run the command as a child; its exit code."""
        assert self.command is not None
        return await self.command.run(_words_of(report), environment_of(report.path, self.cache_dir))


def _words_of(report: FetchReport) -> dict[str, str]:
    return {"path": str(report.path), "repo": report.repo, "revision": report.commit}
