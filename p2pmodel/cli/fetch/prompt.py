"""The end of `fetch --load` and `--prompt`: load the model onto the device, and stream its answer to the terminal."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2pmodel.cli.terminal.output import echo
from p2pmodel.core.progress.views import EngineState
from p2pmodel.errors import InvalidInput
from p2pmodel.loading import optional_imports
from p2pmodel.loading.options import LoadOptions

if TYPE_CHECKING:
    from p2pmodel.loading.model import LoadedModel

PLAIN = LoadOptions()


def check(prompt: str | None, image: Path | None, load: LoadOptions) -> None:
    """Raise early, before the download, the errors of `load_and_answer` that depend on these options only.

    Checks that torch and transformers are installed without importing them. Raises InvalidInput or LocalResource.
    """
    if image is not None and prompt is None:
        raise InvalidInput("an image was given without a prompt", hint="add --prompt")
    optional_imports.check_installed()
    load.check()
    if image is not None:
        from p2pmodel.loading.answers.processor import open_image  # noqa: PLC0415

        open_image(image)


def load_and_answer(
    snapshot: Path,
    prompt: str | None,
    image: Path | None = None,
    *,
    load: LoadOptions = PLAIN,
    loaded: "Callable[[], LoadedModel] | None" = None,
    max_new_tokens: int = 256,
    as_json: bool = False,
    quiet: bool = False,
    on_engine: Callable[[EngineState], object] = lambda _state: None,
) -> dict[str, Any]:
    """Load `snapshot`, answer `prompt` (None: only load) and return the measurements, ready for JSON.

    `loaded` returns its model, if that was loaded while the files arrived, or raises its error. `on_engine` is called
    with what becomes of the model; it is "answered" at the first token. The answer streams to stdout unless `as_json`;
    reasoning and timings go to stderr unless `quiet`.
    Imports torch and transformers. Raises the errors of `p2pmodel.loading`.
    """
    if image is not None and prompt is None:
        raise InvalidInput("an image was given without a prompt", hint="add --prompt")
    optional_imports.require()
    from p2pmodel.loading import model  # noqa: PLC0415

    on_engine("loading")
    found = loaded() if loaded is not None else model.load(snapshot, options=load)
    on_engine("loaded")
    report: dict[str, Any] = {
        "architecture": found.architecture,
        "device": found.device,
        "load_seconds": found.seconds,
        "after_download_seconds": found.after_download_seconds,
        "weight_bytes": found.weight_bytes,
    }
    if not quiet:
        size = f"{found.weight_bytes / 1e6:,.1f} MB"
        echo(f"loaded {found.architecture}, {size}, onto {found.device} {_duration(found)}", err=True)
        if found.beside:
            echo(found.beside, err=True)
    if prompt is None:
        return report
    screen = AnswerScreen(partial(on_engine, "answered"), as_json=as_json, quiet=quiet)
    answer = _answer(found, prompt, image, screen, max_new_tokens=max_new_tokens, quiet=quiet)
    return report | {"answer": answer}


def _duration(loaded: "LoadedModel") -> str:
    if loaded.after_download_seconds is None:
        return f"in {loaded.seconds:.2f} s"
    return f"while it arrived, ready in {loaded.after_download_seconds:.2f} s after the last file was verified"


def _answer(
    loaded: "LoadedModel", prompt: str, image: Path | None, screen: "AnswerScreen", *, max_new_tokens: int, quiet: bool
) -> dict[str, Any]:
    from p2pmodel.loading.answers.chat import answer  # noqa: PLC0415

    found = answer(loaded, prompt, image, max_new_tokens=max_new_tokens, on_text=screen.show)
    screen.end()
    if not quiet:
        reasoning = ", still reasoning" if found.thinking and not found.text else ""
        cut = "" if found.finished else f" (cut off at {max_new_tokens}{reasoning})"
        first = f"first after {found.first_token_seconds:.2f} s"
        echo(f"{found.tokens} tokens{cut} in {found.seconds:.2f} s, {first}", err=True)
    return dataclasses.asdict(found)


class AnswerScreen:
    """Streams the answer to stdout and the reasoning to stderr, each starting on a line of its own.

    `on_first` is called at the first text of either.
    """

    def __init__(self, on_first: Callable[[], object] = lambda: None, *, as_json: bool, quiet: bool) -> None:
        self._on_first: Callable[[], object] | None = on_first
        self._shown = {False: not as_json, True: not quiet}
        self._open: bool | None = None
        """Which of the two streams (True: reasoning) has an unfinished line; None: neither."""

    def show(self, thinking: bool, text: str) -> None:
        if self._on_first is not None:
            self._on_first()
            self._on_first = None
        if not self._shown[thinking]:
            return
        if self._open is not thinking:
            self.end()
        self._open = thinking
        echo(_printable(text), err=thinking, nl=False)

    def end(self) -> None:
        if self._open is not None:
            echo(err=self._open)
        self._open = None


def _printable(text: str) -> str:
    """`text` without control characters, so that a model cannot control the terminal."""
    return "".join(c for c in text if c in "\n\t" or c.isprintable())
