"""Progress of work that is one count of bytes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from p2pmodel.cli.console import reporting
from p2pmodel.node.progress import Phase, Progress
from p2pmodel.settings import Settings


@contextmanager
def counting(phase: Phase, total: int, settings: Settings, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A function that takes the bytes done since its last call and shows how much of `total` is done, on stderr."""
    with reporting("auto" if settings.progress else "none", quiet=quiet) as reporter:
        done = 0

        def count(size: int) -> None:
            nonlocal done
            done += size
            reporter.progress(Progress(phase, total, min(done, total)))

        yield count
