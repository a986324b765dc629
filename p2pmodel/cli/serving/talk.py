"""One conversation in a terminal: lines that are messages or commands, and answers that stream."""

from collections.abc import Callable, Iterable
from pathlib import Path

from p2pmodel.cli.fetch.prompt import AnswerScreen
from p2pmodel.cli.terminal.output import echo
from p2pmodel.errors import InvalidInput
from p2pmodel.loading.answers.turns import Picture, Sampling, Turn
from p2pmodel.serving.chat_model import ChatModel

HELP = """\
/image PATH   add a picture to the next message
/new          forget the conversation
/help         show this
/quit         end; so does Ctrl-D. Ctrl-C stops an answer"""


class Talk:
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
        path = Path(name).expanduser()
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
