"""Running a verb's coroutine: the first signal stops it cleanly and in bounded time, a second one at once."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from p2pmodel.errors import Interrupted, P2PModelError

T = TypeVar("T")

STOP_WITHIN = 8.0
"""Seconds a stopped verb has to end cleanly. Whatever it is cut off in, the next run resumes: kill -9 is worse."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = b"\x1b[?25h\n"


def run(verb: Coroutine[Any, Any, T], *, interrupted: str) -> T:
    """Run `verb` to its end. SIGINT or SIGTERM cancels it, and then Interrupted(`interrupted`) is raised."""
    return _SignalRun(interrupted, ends_well=()).to_the_end(verb)


def serve(server: Coroutine[Any, Any, None], *, interrupted: str) -> None:
    """Run `server`, which has no end of its own. SIGTERM, how services are stopped, ends it well: this returns.
    SIGINT is somebody's Ctrl-C: Interrupted(`interrupted`)."""
    run = _SignalRun(interrupted, ends_well=(signal.SIGTERM,))
    try:
        run.to_the_end(server)
    except Interrupted:
        if run.stopped_by not in run.ends_well:
            raise


class _SignalRun:
    def __init__(self, interrupted: str, *, ends_well: tuple[signal.Signals, ...]) -> None:
        self.stopped_by: signal.Signals | None = None
        self.ends_well = ends_well
        self._interrupted = interrupted
        self._before = {number: signal.getsignal(number) for number in _SIGNALS}
        self._overdue = threading.Timer(STOP_WITHIN, self._end_now)
        self._overdue.daemon = True

    def to_the_end(self, verb: Coroutine[Any, Any, T]) -> T:
        try:
            return asyncio.run(self._watched(verb))
        except (asyncio.CancelledError, P2PModelError):
            # Once it is to stop, how the verb's own clean-up fails is of no interest.
            if self.stopped_by is None:
                raise
            raise Interrupted(self._interrupted) from None
        finally:
            self._overdue.cancel()
            for number, handler in self._before.items():
                signal.signal(number, handler)

    async def _watched(self, verb: Coroutine[Any, Any, T]) -> T:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(verb)
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._stop, number, task)
        try:
            return await task
        finally:
            # asyncio.run goes on to wait for its threads: from here on a signal finds no loop to tell.
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
                signal.signal(number, lambda late, _frame: self._at_once(signal.Signals(late)))

    def _stop(self, number: signal.Signals, task: asyncio.Task[Any]) -> None:
        if self.stopped_by is not None:
            self._at_once(number)
        self.stopped_by = number
        self._overdue.start()
        task.cancel()

    def _at_once(self, number: signal.Signals) -> None:
        self.stopped_by = number
        self._end_now()

    def _end_now(self) -> None:
        if sys.stderr.isatty():
            os.write(2, _SHOW_CURSOR)  # a progress bar hides it
        if self.stopped_by in self.ends_well:
            os._exit(0)
        os.write(2, f"p2pmodel: {self._interrupted}\n".encode())
        os._exit(Interrupted.exit_code)
