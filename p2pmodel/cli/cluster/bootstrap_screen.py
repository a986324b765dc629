"""The display of a bootstrap on stderr: a live table on a terminal, plain or JSON lines elsewhere."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from p2pmodel.cli.terminal.console import Style
from p2pmodel.cli.terminal.output import echo, visible
from p2pmodel.cluster.bootstrap.bootstrap import BootstrapScreen
from p2pmodel.cluster.bootstrap.plan import Stage
from p2pmodel.cluster.bootstrap.roster import WITH_FILES, HostEntry, Roster
from p2pmodel.core.sizes import duration, human

_PLAIN_EVERY = 5.0
_SLOWEST = 5
"""Hosts of a live table: those that are furthest behind."""


_COUNTED: tuple[Stage, ...] = ("starting", "fetching", "ready", "loading", "loaded", "answered", "failed")
"""Stages that a summary counts."""


class QuietScreen:
    """Shows nothing."""

    def stage(self, text: str) -> None:
        """See BootstrapScreen."""

    def preflight(self, roster: Roster) -> None:
        """See BootstrapScreen."""

    def progress(self, roster: Roster) -> None:
        """See BootstrapScreen."""


class LineScreen(QuietScreen):
    """Plain lines; `as_json`: JSON lines."""

    def __init__(self, *, as_json: bool = False) -> None:
        self._as_json = as_json
        self._last = 0.0
        self._shown = ""

    def stage(self, text: str) -> None:
        """Each stage once."""
        if text != self._shown:
            self._shown = text
            self._line("stage", text)

    def preflight(self, roster: Roster) -> None:
        """A line for each host with a failure or a warning, and one for the rest."""
        for line in preflight_lines(roster):
            self._line("preflight", line)

    def progress(self, roster: Roster) -> None:
        """A line every few seconds."""
        now = time.monotonic()
        if now - self._last >= _PLAIN_EVERY:
            self._last = now
            self._line("progress", summary(roster))

    def _line(self, kind: str, text: str) -> None:
        echo(json.dumps({"event": kind, "text": text}) if self._as_json else text, err=True)


class LiveScreen(LineScreen):
    """A table that is drawn again and again, below the lines of the preflight."""

    def __init__(self, live: Live) -> None:
        super().__init__()
        self._live = live

    def stage(self, text: str) -> None:
        """The first line of the table."""
        self._shown = text
        self._live.update(Text(visible(text)))

    def progress(self, roster: Roster) -> None:
        """The table."""
        self._live.update(_drawn(self._shown, roster))

    def _line(self, kind: str, text: str) -> None:  # noqa: ARG002
        self._live.console.print(visible(text), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def screen_of(style: Style, *, quiet: bool) -> Iterator[BootstrapScreen]:
    """The screen in `style`; with `quiet` it shows nothing."""
    if quiet or style == "none":
        yield QuietScreen()
    elif style == "bar" or (style == "auto" and sys.stderr.isatty()):
        with Live(console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False) as live:
            yield LiveScreen(live)
    else:
        yield LineScreen(as_json=style == "json")


def preflight_lines(roster: Roster) -> list[str]:
    """The preflight in lines: failures and warnings by host, then the sum with the bytes and the time."""
    lines = [
        f"{entry.name}: {entry.failure}".replace(f"{entry.name}: {entry.name}: ", f"{entry.name}: ", 1)
        for entry in roster.failed
    ]
    for entry in roster.at("passed"):
        lines += [f"{entry.name}: warning: {check.line}" for check in entry.checks if check.outcome == "warning"]
    ready, passed = roster.at(*WITH_FILES), roster.at("passed")
    line = f"preflight: {len(passed)} of {len(roster.entries)} hosts pass"
    line += f", {len(ready)} have the snapshot already" if ready else ""
    missing = sum(entry.missing for entry in passed)
    line += f"; {human(missing)} to fetch on {len(passed)} hosts" if passed else ""
    estimate = roster.estimate
    line += f", at least {duration(estimate)} over the known links" if estimate else ""
    return [*lines, line]


def summary(roster: Roster) -> str:
    """How far all hosts are, in one line."""
    counts = {stage: len(roster.at(stage)) for stage in _COUNTED}
    known = ", ".join(f"{count} {stage}" for stage, count in counts.items() if count)
    fetching = roster.at("fetching")
    rates = sum(entry.progress.rate for entry in fetching)
    share = sum(entry.share for entry in roster.entries.values()) / max(1, len(roster.entries))
    line = f"{share:.0%} of all bytes; {known}"
    return f"{line}; {human(rates)}/s together" if rates else line


def _drawn(stage: str, roster: Roster) -> Group:
    table = Table.grid(padding=(0, 2))
    behind = sorted(roster.at("fetching"), key=lambda entry: entry.share)[:_SLOWEST]
    for entry in behind:
        table.add_row(Text(entry.name), ProgressBar(total=1.0, completed=entry.share, width=30), Text(_told(entry)))
    return Group(Text(visible(stage)), Text(summary(roster)), table)


def _told(entry: HostEntry) -> str:
    now = entry.progress
    left = f", {duration((now.total - now.done) / now.rate)} left" if now.rate else ""
    return visible(f"{now.activity}, {human(now.rate)}/s{left}")
