"""Progress and notes on stderr: a live bar on a terminal, JSON lines or plain lines elsewhere."""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import click
from rich.console import Console
from rich.progress import BarColumn, Task, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from p2pmodel.core.sizes import human
from p2pmodel.node.reporter import Progress, Reporter

Style = Literal["auto", "bar", "plain", "json", "none"]
STYLES: tuple[Style, ...] = ("auto", "bar", "plain", "json", "none")

_PLAIN_EVERY = 5.0
_JSON_EVERY = 0.2


def describe(progress: Progress) -> str:
    """`progress` as one line of words."""
    parts: list[str] = [progress.phase]
    if progress.total:
        parts.append(f"{progress.done * 100 // progress.total}% of {human(progress.total)}")
    sources = {"peers": progress.from_peers, "mirrors": progress.from_mirrors, "cache": progress.from_cache}
    known = [f"{name} {human(size)}" for name, size in sources.items() if size]
    if progress.from_other_zones is not None and progress.from_peers:
        known.insert(1, f"{human(progress.from_other_zones)} of other zones")
    if known:
        parts.append("from " + ", ".join(known))
    if progress.download_rate:
        parts.append(f"{human(progress.download_rate)}/s")
    if progress.peers:
        parts.append(f"{progress.peers} peers")
    if progress.uploaded:
        parts.append(f"sent {human(progress.uploaded)}")
    if progress.waiting_for:
        parts.append(f"waiting for {progress.waiting_for}")
    return "  ".join(parts)


@dataclass(frozen=True, slots=True)
class ConsoleReporter(Reporter):
    """A Reporter on stderr. Results are printed within `aside()`: a live bar is off the terminal meanwhile."""

    aside: Callable[[], AbstractContextManager[None]] = nullcontext


@contextmanager
def reporting(style: Style, *, quiet: bool) -> Iterator[ConsoleReporter]:
    """A Screen that shows progress and notes in `style`; with `quiet` it shows nothing."""
    chosen = _choose(style, quiet=quiet)
    if chosen == "bar":
        with _bar() as screen:
            yield screen
    elif chosen == "json":
        yield _json_lines()
    elif chosen == "plain":
        yield _plain_lines()
    else:
        yield ConsoleReporter()


def _choose(style: Style, *, quiet: bool) -> Style:
    if quiet:
        return "none"
    if style == "auto":
        return "bar" if sys.stderr.isatty() else "plain"
    return style


class _Throttle:
    """Lets a report through at most every `seconds`, and always when the phase changes or what it waits for, since no
    other may follow for long."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = -seconds
        self._standing = "", ""

    def passes(self, progress: Progress) -> bool:
        now = time.monotonic()
        standing = progress.phase, progress.waiting_for
        if standing == self._standing and now - self._last < self._seconds:
            return False
        self._last, self._standing = now, standing
        return True


def _plain_lines() -> ConsoleReporter:
    throttle = _Throttle(_PLAIN_EVERY)

    def show(progress: Progress) -> None:
        if throttle.passes(progress):
            click.echo(describe(progress), err=True)

    return ConsoleReporter(show, lambda line: click.echo(line, err=True))


def _json_lines() -> ConsoleReporter:
    throttle = _Throttle(_JSON_EVERY)

    def show(progress: Progress) -> None:
        if throttle.passes(progress):
            click.echo(json.dumps(dataclasses.asdict(progress)), err=True)

    return ConsoleReporter(show, lambda line: click.echo(json.dumps({"note": line}), err=True))


class _ProgressText(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        return Text(str(task.fields["words"]))


@contextmanager
def _bar() -> Iterator[ConsoleReporter]:
    console = Console(stderr=True)
    # Not redirected: rich would send the result to stderr, and `path=$(p2pmodel fetch ...)` would stay empty.
    with Bars(
        BarColumn(bar_width=30),
        _ProgressText(),
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as bars:
        task = bars.add_task("", total=None, words="")

        def show(progress: Progress) -> None:
            bars.update(task, total=progress.total or None, completed=progress.done, words=describe(progress))

        @contextmanager
        def aside() -> Iterator[None]:
            bars.stop()
            try:
                yield
            finally:
                bars.start()

        def say(line: str) -> None:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

        yield ConsoleReporter(show, say, aside=aside)
