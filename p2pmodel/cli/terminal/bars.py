"""Live bars on a terminal: the transfer, the load, and each file that is on its way."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from p2pmodel.cli.terminal import log
from p2pmodel.cli.terminal.console import ConsoleReporter, FileLines, describe, describe_load
from p2pmodel.cli.terminal.output import visible
from p2pmodel.core.sizes import human
from p2pmodel.loading.options import LoadProgress
from p2pmodel.node.reporter import FileProgress, Progress

_MOST_BARS = 8
"""Files with a bar at a time."""


@contextmanager
def reporting_bars(*, of_files: bool) -> Iterator[ConsoleReporter]:
    """A reporter with a bar of the transfer; `of_files`: with one of each file, too."""
    with _bar() as bar:
        if not of_files:
            yield bar
            return
        bars = _FileBars(bar)
        yield bars
        bars.end()


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


class _FileBars(FileLines):
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
