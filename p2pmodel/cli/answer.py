"""The tail of a fetch with a prompt: the snapshot onto the device, the answer onto the terminal."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from p2pmodel.errors import InvalidInput
from p2pmodel.loading import optional_imports


def check(prompt: str | None, image: Path | None, device: str | None) -> None:
    """Raise what `load_and_answer` is sure to raise for these, as far as it shows before anything is downloaded.

    Imports neither torch nor transformers, but tells whether they are there. Raises InvalidInput or LocalResource.
    """
    if image is not None and prompt is None:
        raise InvalidInput("an image was given without a prompt", hint="add --prompt")
    optional_imports.check_installed()
    if device is not None:
        optional_imports.check_device_name(device)
    if image is not None:
        from p2pmodel.loading.image import open_image  # noqa: PLC0415

        open_image(image)


def load_and_answer(
    snapshot: Path,
    prompt: str | None,
    image: Path | None = None,
    *,
    device: str | None = None,
    max_new_tokens: int = 256,
    as_json: bool = False,
    quiet: bool = False,
    on_loaded: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Load `snapshot`, ask `prompt` (None: only load) and return what was measured, ready for JSON.

    `on_loaded` is called once it is on the device. The answer streams to stdout unless `as_json`; reasoning and timings
    go to stderr unless `quiet`. torch and transformers are imported by this call. Raises the errors of
    `p2pmodel.loading`.
    """
    if image is not None and prompt is None:
        raise InvalidInput("an image was given without a prompt", hint="add --prompt")
    optional_imports.require()
    from p2pmodel.loading.chat import answer  # noqa: PLC0415
    from p2pmodel.loading.model import load  # noqa: PLC0415

    loaded = load(snapshot, device=device)
    on_loaded()
    report: dict[str, Any] = {
        "architecture": loaded.architecture,
        "device": loaded.device,
        "load_seconds": loaded.seconds,
        "weight_bytes": loaded.weight_bytes,
    }
    if not quiet:
        size = f"{loaded.weight_bytes / 1e6:,.1f} MB"
        click.echo(f"loaded {loaded.architecture}, {size}, onto {loaded.device} in {loaded.seconds:.2f} s", err=True)
    if prompt is None:
        return report
    screen = _AnswerScreen(as_json=as_json, quiet=quiet)
    said = answer(loaded, prompt, image, max_new_tokens=max_new_tokens, on_text=screen.show)
    screen.end()
    if not quiet:
        doing = ", still thinking" if said.thinking and not said.text else ""
        cut = "" if said.finished else f" (cut off at {max_new_tokens}{doing})"
        first = f"first after {said.first_token_seconds:.2f} s"
        click.echo(f"{said.tokens} tokens{cut} in {said.seconds:.2f} s, {first}", err=True)
    return report | {"answer": dataclasses.asdict(said)}


class _AnswerScreen:
    """Streams the answer to stdout and the reasoning to stderr, one below the other."""

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self._wanted = {False: not as_json, True: not quiet}
        self._open: bool | None = None
        """Which of the two has a line that is not ended."""

    def show(self, thinking: bool, text: str) -> None:
        if not self._wanted[thinking]:
            return
        if self._open is not thinking:
            self.end()
        self._open = thinking
        click.echo(_harmless(text), err=thinking, nl=False)

    def end(self) -> None:
        if self._open is not None:
            click.echo(err=self._open)
        self._open = None


def _harmless(text: str) -> str:
    """`text` without control characters: a model must not be able to steer the terminal."""
    return "".join(c for c in text if c in "\n\t" or c.isprintable())
