"""What `p2pmodel fetch` hands to an inference engine once the snapshot is complete: its command line, or the process.

`--print-serve` prints the command that serves the snapshot; `--exec` runs one.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

import click

from p2pmodel.cli.fetch.engine_process import EngineCommand, environment_of
from p2pmodel.cli.fetch.fetch_report import FetchReport
from p2pmodel.errors import InvalidInput
from p2pmodel.inference.gpus import gpu_memory
from p2pmodel.inference.model_facts import model_facts
from p2pmodel.inference.serve_commands import ENGINES, InferenceEngine, ServeCommand, serve_command


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
