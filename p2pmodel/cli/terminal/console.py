"""Progress and notes on stderr: a live bar on a terminal, plain lines or JSON lines elsewhere."""

import dataclasses
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

from p2pmodel.cli.terminal import log
from p2pmodel.cli.terminal.output import echo
from p2pmodel.core.notes import Note
from p2pmodel.core.sizes import counted, duration, human
from p2pmodel.loading.options import LoadProgress
from p2pmodel.node.reporter import FileList, FileProgress, Progress, Reporter

Style = Literal["auto", "bar", "files", "plain", "json", "none"]
STYLES: tuple[Style, ...] = ("auto", "bar", "files", "plain", "json", "none")

_PLAIN_EVERY = 5.0
_JSON_EVERY = 0.2
_FILES_EVERY = 0.5
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
    if chosen == "bar" or (chosen == "files" and sys.stderr.isatty()):
        from p2pmodel.cli.terminal.bars import reporting_bars  # noqa: PLC0415 - imports rich, which only bars need

        with reporting_bars(of_files=chosen == "files") as bars:
            yield bars
    elif chosen == "files":
        lines = FileLines(_PlainLines())
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


class FileLines(ConsoleReporter):
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
