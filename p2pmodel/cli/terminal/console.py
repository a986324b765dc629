"""Progress and notes on stderr: a live bar on a terminal, plain lines or JSON lines elsewhere."""

import dataclasses
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from p2pmodel.cli.terminal import log
from p2pmodel.cli.terminal.output import echo, visible
from p2pmodel.core.notes import Note
from p2pmodel.core.sizes import counted, duration, human
from p2pmodel.loading.arrival.progress import LoadProgress
from p2pmodel.node.reporter import FileList, FileProgress, Progress, Reporter

Style = Literal["auto", "bar", "files", "plain", "json", "none"]
STYLES: tuple[Style, ...] = ("auto", "bar", "files", "plain", "json", "none")

_PLAIN_EVERY = 5.0
_JSON_EVERY = 0.2
_FILES_EVERY = 0.5
_MOST_BARS = 8
"""Files with a bar at a time."""
_SERVING_EVERY = 60.0
"""Seconds between two plain lines while a node only serves."""


def describe(progress: Progress) -> str:
    """`progress` as one line of text."""
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
    if progress.eta is not None:
        parts.append(f"{duration(progress.eta)} left")
    if progress.peers:
        parts.append(counted(progress.peers, "peer"))
    if progress.uploaded:
        parts.append(f"sent {human(progress.uploaded)}")
    if progress.waiting_for:
        parts.append(f"waiting for {progress.waiting_for}")
    return "  ".join(parts)


def describe_load(load: LoadProgress) -> str:
    """`load` as one line of text."""
    if load.phase == "waiting":
        return "model: waiting for its small files and headers"
    words = {"loading": "loading", "verifying": "tensors loaded, waiting for the last hashes", "loaded": "loaded"}
    share = f"  {load.loaded * 100 // load.total}% of {human(load.total)}" if load.total else ""
    return f"model: {words[load.phase]}{share}"


class ConsoleReporter(Reporter):
    """A Reporter on stderr; this base shows nothing."""

    def loading(self, load: LoadProgress) -> None:
        """The load of the model, beside the transfer that `progress` shows."""

    def aside(self) -> AbstractContextManager[None]:
        """Print results within this context, which takes a live bar off the terminal meanwhile."""
        return nullcontext()


@contextmanager
def reporting(style: Style, *, quiet: bool) -> Iterator[ConsoleReporter]:
    """A reporter that shows progress and notes in `style`; with `quiet` it shows nothing."""
    chosen = _choose(style, quiet=quiet)
    if chosen == "bar":
        with _bar() as bar:
            yield bar
    elif chosen == "files" and sys.stderr.isatty():
        with _bar() as bar:
            bars = _FileBars(bar)
            yield bars
            bars.end()
    elif chosen == "files":
        lines = _FileLines(_PlainLines())
        yield lines
        lines.end()
    elif chosen == "json":
        yield _JsonLines()
    elif chosen == "plain":
        yield _PlainLines()
    else:
        yield ConsoleReporter()


def _choose(style: Style, *, quiet: bool) -> Style:
    if quiet:
        return "none"
    if style == "auto":
        return "bar" if sys.stderr.isatty() else "plain"
    return style


class _Throttle:
    """Passes a report at most every `seconds`, and at once when the phase changes or what the transfer waits for:
    another report may not follow for long."""

    def __init__(self, seconds: float, serving: float) -> None:
        self._seconds = seconds
        self._serving = serving
        self._last = -math.inf
        self._state = "", ""

    def passes(self, phase: str, waiting_for: str = "") -> bool:
        now = time.monotonic()
        state = phase, waiting_for
        pause = self._serving if phase == "seeding" else self._seconds
        if state == self._state and now - self._last < pause:
            return False
        self._last, self._state = now, state
        return True


class _PlainLines(ConsoleReporter):
    def __init__(self) -> None:
        self._throttle = _Throttle(_PLAIN_EVERY, _SERVING_EVERY)
        self._load_throttle = _Throttle(_PLAIN_EVERY, _PLAIN_EVERY)
        self._shown = ""

    def progress(self, progress: Progress) -> None:
        line = describe(progress)
        if line != self._shown and self._throttle.passes(progress.phase, progress.waiting_for):
            self._shown = line
            echo(line, err=True)

    def loading(self, load: LoadProgress) -> None:
        if self._load_throttle.passes(load.phase):
            echo(describe_load(load), err=True)

    def note(self, line: str) -> None:
        if log.shows(line):
            echo(line, err=True)


class _JsonLines(ConsoleReporter):
    """Each line has the transfer, and the load under `load` once it has begun."""

    def __init__(self) -> None:
        self._throttle = _Throttle(_JSON_EVERY, _JSON_EVERY)
        self._load_throttle = _Throttle(_JSON_EVERY, _JSON_EVERY)
        self._progress = Progress("finding")
        self._load: LoadProgress | None = None

    def progress(self, progress: Progress) -> None:
        self._progress = progress
        if self._throttle.passes(progress.phase, progress.waiting_for):
            self._print()

    def loading(self, load: LoadProgress) -> None:
        self._load = load
        if self._load_throttle.passes(load.phase):
            self._print()

    def _print(self) -> None:
        plain = {**dataclasses.asdict(self._progress), "eta": self._progress.eta}
        load = {} if self._load is None else {"load": dataclasses.asdict(self._load)}
        echo(json.dumps(plain | load), err=True)

    def note(self, line: str) -> None:
        if log.shows(line):
            event = Note.of(line)
            plain = {**event.keys, "note": line, "event": event.event, "level": event.level}
            echo(json.dumps(plain, default=str), err=True)


class _BarReporter(ConsoleReporter):
    def __init__(self, bars: Bars, console: Console) -> None:
        self._bars = bars
        self._console = console
        self._task = bars.add_task("", total=None, words="")
        self._load: TaskID | None = None

    def progress(self, progress: Progress) -> None:
        words = describe(progress)
        self._bars.update(self._task, total=progress.total or None, completed=progress.done, words=words)

    def loading(self, load: LoadProgress) -> None:
        if self._load is None:
            self._load = self._bars.add_task("", total=None, words="")
        self._bars.update(self._load, total=load.total or None, completed=load.loaded, words=describe_load(load))

    def note(self, line: str) -> None:
        if log.shows(line):
            self.print(line)

    def print(self, line: str) -> None:
        """Print a line above the bars."""
        self._console.print(visible(line), markup=False, highlight=False, soft_wrap=True)

    def show(self, task: TaskID | None, total: int, done: int, words: str) -> TaskID:
        """Add a bar, or change the one of `task`. Returns its task."""
        if task is None:
            task = self._bars.add_task("", total=None, words="")
        self._bars.update(task, total=total, completed=done, words=words)
        return task

    def remove(self, task: TaskID) -> None:
        """Remove a bar."""
        self._bars.remove_task(task)

    @contextmanager
    def aside(self) -> Iterator[None]:
        self._bars.stop()
        try:
            yield
        finally:
            self._bars.start()


class _FileLines(ConsoleReporter):
    """Prints a line for each file once it is verified, beside what `inner` shows."""

    def __init__(self, inner: ConsoleReporter) -> None:
        self._inner = inner
        self._files: FileList = tuple
        self._throttle = _Throttle(_FILES_EVERY, _FILES_EVERY)
        self._printed: set[str] = set()

    @property
    def wants_files(self) -> bool:
        return True

    def files(self, files: FileList) -> None:
        self._files = files

    def progress(self, progress: Progress) -> None:
        if self._throttle.passes(progress.phase):
            self._show(self._files())
        self._inner.progress(progress)

    def loading(self, load: LoadProgress) -> None:
        self._inner.loading(load)

    def note(self, line: str) -> None:
        self._inner.note(line)

    def aside(self) -> AbstractContextManager[None]:
        return self._inner.aside()

    def end(self) -> None:
        """Show the files as they are in the end."""
        self._show(self._files())

    def _show(self, files: Sequence[FileProgress]) -> None:
        for file in files:
            if file.verified and file.path not in self._printed:
                self._printed.add(file.path)
                self._print(f"{file.path}  {human(file.size)}")

    def _print(self, line: str) -> None:
        echo(line, err=True)


class _FileBars(_FileLines):
    """Shows a bar for each file that is on its way, too."""

    def __init__(self, inner: _BarReporter) -> None:
        super().__init__(inner)
        self._bars = inner
        self._tasks: dict[str, TaskID] = {}

    def _show(self, files: Sequence[FileProgress]) -> None:
        super()._show(files)
        coming = [file for file in files if file.done and not file.verified]
        shown = {file.path: file for file in coming if file.path in self._tasks}
        shown |= {file.path: file for file in coming[: _MOST_BARS - len(shown)]}
        for path in self._tasks.keys() - shown.keys():
            self._bars.remove(self._tasks.pop(path))
        for path, file in shown.items():
            words = f"{path}  {file.done * 100 // file.size}% of {human(file.size)}"
            self._tasks[path] = self._bars.show(self._tasks.get(path), file.size, file.done, words)

    def _print(self, line: str) -> None:
        self._bars.print(line)


class _ProgressText(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        return Text(visible(str(task.fields["words"])))


@contextmanager
def _bar() -> Iterator[_BarReporter]:
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
        yield _BarReporter(bars, console)
