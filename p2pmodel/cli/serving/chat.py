"""`p2pmodel chat`: fetch a model, load it, and talk to it in the terminal."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

import click

from p2pmodel.cli import options
from p2pmodel.cli.fetch.load_options import load_options, load_options_of
from p2pmodel.cli.rollout.options import node_name
from p2pmodel.cli.serving.fetched_model import ModelFetch, ModelReports
from p2pmodel.cli.serving.serve import loaded_line
from p2pmodel.cli.serving.talk import Talk
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.console import reporting
from p2pmodel.cli.terminal.output import echo
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import Reference
from p2pmodel.core.progress.views import EngineState
from p2pmodel.errors import Interrupted, InvalidInput
from p2pmodel.loading.answers.turns import Sampling

_RESUMES = "interrupted; what was verified is kept: the same command resumes"


@click.command()
@load_options
@click.option("--system", metavar="TEXT", help="System message at the beginning of the conversation.")
@click.option(
    "--temperature",
    type=click.FloatRange(0, 2),
    help="Randomness; 0: always the most likely token (default: the model's).",
)
@click.option("--top-p", type=click.FloatRange(0, 1), help="Share of the likely tokens (default: the model's).")
@click.option("--seed", type=click.IntRange(-(1 << 63), (1 << 63) - 1), help="Seed that makes the answers repeatable.")
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=1),
    default=4096,
    show_default=True,
    help="Bound on the tokens of an answer.",
)
@click.option("--no-daemon", is_flag=True, help="Download in this process even if a daemon runs.")
@options.reference
@options.socket
@node_name
@options.listen
@options.origin
@options.common
@options.progress
def chat(settings: Settings, ref: Reference, **flags: Any) -> None:
    """Fetch a model, load it, and talk to it: each line of stdin is a message.

    The answers stream to stdout, the reasoning of Thinking models to stderr. '/image PATH' adds a picture to the next
    message, '/new' begins another conversation, '/help' lists all commands.
    """
    if flags["as_json"]:
        raise InvalidInput("chat has no --json", hint="p2pmodel serve answers programs")
    fetch = ModelFetch(settings, ref, load_options_of(flags), flags["no_daemon"])
    fetch.check()
    quiet = flags["quiet"]
    with reporting(flags["style"], quiet=quiet) as screen:
        brought = run_interruptible(fetch.bring(screen, on_progress=screen.loading), interrupted=_RESUMES)
    if not quiet:
        echo(loaded_line(brought.model), err=True)
    sampling = Sampling(flags["temperature"], flags["top_p"], flags["seed"], flags["max_new_tokens"])
    answered = partial(_report, brought.reports, "answered")
    with _ended_by_sigterm():
        try:
            talk = Talk(brought.model, sampling, system=flags["system"], quiet=quiet, on_first=answered)
            talk.run(_messages(quiet=quiet))
        finally:
            _report(brought.reports, "none")


def _report(reports: ModelReports, state: EngineState) -> None:
    run_interruptible(reports.report(state), interrupted="interrupted")


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the command. Elsewhere it has the effect of Ctrl-C, which only stops an answer here."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise Interrupted("interrupted")

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _messages(*, quiet: bool) -> Iterator[str]:
    """The lines of stdin, with editing and history on a terminal."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    with suppress(ImportError):
        import readline  # noqa: F401, PLC0415 - input() uses it
    if not quiet:
        echo("type a message; /help lists the commands", err=True)
    while True:
        try:
            yield input("> ")
        except EOFError:
            echo(err=True)
            return
