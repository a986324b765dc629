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
from p2pmodel.cli.rollout.options import node_name
from p2pmodel.cli.serving.fetched_model import ModelReports, fetch_snapshot
from p2pmodel.cli.serving.serve import loaded_line
from p2pmodel.cli.serving.talk import Talk
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.console import reporting
from p2pmodel.cli.terminal.output import echo
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import Reference
from p2pmodel.core.progress.views import EngineState
from p2pmodel.errors import Interrupted, InvalidInput, P2PModelError
from p2pmodel.loading import optional_imports
from p2pmodel.loading.turns import Sampling
from p2pmodel.serving.chat_model import LoadedChatModel, load_chat_model

_RESUMES = "interrupted; what was verified is kept: the same command resumes"


@click.command()
@click.option("--device", help="Device to load on (default: cuda if present, else cpu).")
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
@click.option("--allow-pickle", is_flag=True, help="Also take pytorch_model.bin where there are no safetensors.")
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
    optional_imports.check_installed()
    if flags["device"] is not None:
        optional_imports.check_device_name(flags["device"])
    quiet, pickle = flags["quiet"], flags["allow_pickle"]
    with reporting(flags["style"], quiet=quiet) as screen:
        fetching = fetch_snapshot(settings, ref, screen, allow_pickle=pickle, no_daemon=flags["no_daemon"])
        snapshot = run_interruptible(fetching, interrupted=_RESUMES)
    sampling = Sampling(flags["temperature"], flags["top_p"], flags["seed"], flags["max_new_tokens"])
    report = partial(_report, snapshot.reports)
    with _ended_by_sigterm():
        report("loading")
        try:
            model = load_chat_model(snapshot.path, device=flags["device"], allow_pickle=pickle)
        except P2PModelError as error:
            report("failed", error)
            raise
        try:
            _talk(model, sampling, report, system=flags["system"], quiet=quiet)
        finally:
            report("none")


def _talk(
    model: LoadedChatModel, sampling: Sampling, report: "partial[None]", *, system: str | None, quiet: bool
) -> None:
    report("loaded")
    if not quiet:
        echo(loaded_line(model), err=True)
    talk = Talk(model, sampling, system=system, quiet=quiet, on_first=partial(report, "answered"))
    talk.run(_messages(quiet=quiet))


def _report(reports: ModelReports, state: EngineState, error: P2PModelError | None = None) -> None:
    run_interruptible(reports.report(state, error), interrupted="interrupted")


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
