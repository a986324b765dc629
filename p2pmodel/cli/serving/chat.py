"""`p2pmodel chat`: fetch a model, load it, and talk to it in the terminal.

A conversation is lines that are messages or commands, and answers that stream.
"""

import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import click

from p2pmodel.cli import options
from p2pmodel.cli.fetch.options import load_options, load_options_of
from p2pmodel.cli.fetch.prompt import AnswerScreen
from p2pmodel.cli.option_types import Count, Number
from p2pmodel.cli.rollout.options import node_name
from p2pmodel.cli.serving.fetched_model import ModelFetch, ModelReports
from p2pmodel.cli.serving.serve import loaded_line
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.console import reporting
from p2pmodel.cli.terminal.output import echo
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import Reference
from p2pmodel.core.files.home import expanded
from p2pmodel.core.progress.views import EngineState
from p2pmodel.errors import Interrupted, InvalidInput
from p2pmodel.loading.answers.turns import Picture, Sampling, Turn
from p2pmodel.serving.answers import ChatModel

HELP = """\
/image PATH   add a picture to the next message
/new          forget the conversation
/help         show this
/quit         end; so does Ctrl-D. Ctrl-C stops an answer"""


class ChatSession:
    """The conversation. `on_first` is called at the first text of the first answer."""

    def __init__(
        self,
        model: ChatModel,
        sampling: Sampling,
        *,
        system: str | None = None,
        quiet: bool = False,
        on_first: Callable[[], object] | None = None,
    ) -> None:
        self._model = model
        self._sampling = sampling
        self._quiet = quiet
        self._on_first = on_first
        self._start = (Turn("system", (system,)),) if system else ()
        self._turns: list[Turn] = [*self._start]
        self._pictures: list[Picture] = []

    def run(self, lines: Iterable[str]) -> None:
        """Answer each of `lines` until they end, or one of them is /quit."""
        for line in lines:
            text = line.strip()
            command, _, rest = text.partition(" ")
            if command == "/quit":
                return
            if command == "/image":
                self._add_picture(rest.strip())
            elif command == "/new":
                self._turns, self._pictures = [*self._start], []
            elif command == "/help":
                echo(HELP, err=True)
            elif command[:1] == "/" and command[1:].isalpha():
                echo(f"there is no command {command}; /help lists them", err=True)
            elif text:
                self._answer(text)

    def _add_picture(self, name: str) -> None:
        try:
            path = expanded(Path(name))
        except InvalidInput as error:
            echo(str(error), err=True)
            return
        if not self._model.takes_images:
            echo("this model takes text only", err=True)
        elif not name:
            echo("/image needs the path of a picture", err=True)
        elif not path.is_file():
            echo(f"there is no image {path}", err=True)
        else:
            self._pictures.append(Picture(path))
            if not self._quiet:
                echo(f"{path.name} goes with the next message", err=True)

    def _answer(self, text: str) -> None:
        """Answer `text`. A message without an answer is not part of the conversation; its pictures are dropped if the
        model does not take it."""
        asked = Turn("user", (*self._pictures, text))
        screen = AnswerScreen(self._first, as_json=False, quiet=self._quiet)
        said: list[str] = []

        def show(thinking: bool, part: str) -> None:
            screen.show(thinking, part)
            if not thinking:
                said.append(part)

        end = ""
        try:
            answer = self._model.reply((*self._turns, asked), self._sampling, on_text=show, stopped=lambda: False)
        except KeyboardInterrupt:
            end = "(stopped)"
        except InvalidInput as error:
            end, self._pictures = str(error), []
        else:
            end = "" if answer.finished else f"(cut off after {answer.tokens} tokens)"
        screen.end()
        if end:
            echo(end, err=True)
        if said:
            self._turns += [asked, Turn("assistant", ("".join(said).rstrip(),))]
            self._pictures = []

    def _first(self) -> None:
        if self._on_first is not None:
            self._on_first()
            self._on_first = None


_RESUMES = "interrupted; what was verified is kept: the same command resumes"


@click.command()
@load_options
@click.option("--system", metavar="TEXT", help="System message at the beginning of the conversation.")
@click.option(
    "--temperature",
    type=Number(0, 2),
    help="Randomness; 0: always the most likely token (default: the model's).",
)
@click.option("--top-p", type=Number(0, 1), help="Share of the likely tokens (default: the model's).")
@click.option("--seed", type=Count(-(1 << 63), (1 << 63) - 1), help="Seed that makes the answers repeatable.")
@click.option(
    "--max-new-tokens",
    type=Count(min=1),
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
            talk = ChatSession(brought.model, sampling, system=flags["system"], quiet=quiet, on_first=answered)
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
