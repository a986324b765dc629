"""Coroutines under signals: the first signal stops a verb cleanly within a bound, a second one at once."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from p2pmodel.core.tasks import companions
from p2pmodel.errors import Interrupted, P2PModelError
from p2pmodel.service.roles.reload import Reload

T = TypeVar("T")

STOP_WITHIN = 8.0
"""Seconds for a stopped verb to clean up. The process ends after that; the next run resumes, as after kill -9."""
THREADS_END_WITHIN = 1.0
"""Seconds for its threads after that, such as one that imports torch: what they do is repeated by the next run, too."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PASSED_ON = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals without a meaning for a verb, which programs that it runs may have one for."""
_SHOW_CURSOR = b"\x1b[?25h\n"


def run_interruptible(verb: Coroutine[Any, Any, T], *, interrupted: str) -> T:
    """Run `verb` to its end. SIGINT and SIGTERM cancel it, and Interrupted(`interrupted`) is raised."""
    return _SignalRun(interrupted, success=()).run(verb)


def run_service(service: Coroutine[Any, Any, None], *, interrupted: str, reload: Reload) -> None:
    """Run `service` until a signal. Returns after SIGTERM, which is how services are stopped.

    SIGHUP reloads; after the terminal of the process has gone it stops the service as SIGTERM does.
    Raises Interrupted(`interrupted`) after SIGINT (Ctrl-C).
    """
    run = _SignalRun(interrupted, success=(signal.SIGTERM,))
    try:
        run.run(run.reloading(service, reload))
    except Interrupted:
        if run.stopped_by not in run.success:
            raise


@contextmanager
def passed_on(send: Callable[[signal.Signals], None]) -> Iterator[None]:
    """While the context lasts, signals go to `send` and do not stop the verb, which `run_interruptible` runs."""
    run, loop = _RUN.get(), asyncio.get_running_loop()
    run.send = send
    for number in _PASSED_ON:
        loop.add_signal_handler(number, send, number)
    try:
        yield
    finally:
        run.send = None
        for number in _PASSED_ON:
            loop.remove_signal_handler(number)


class _SignalRun:
    """One run of a coroutine with handlers for SIGINT and SIGTERM. `success`: signals that end it with exit code 0."""

    def __init__(self, interrupted: str, *, success: tuple[signal.Signals, ...]) -> None:
        self.stopped_by: signal.Signals | None = None
        self.success = success
        self.send: Callable[[signal.Signals], None] | None = None
        """Where signals go instead."""
        self._interrupted = interrupted
        self._before = {number: signal.getsignal(number) for number in _SIGNALS}
        self._overdue = self._timer(STOP_WITHIN)

    def run(self, verb: Coroutine[Any, Any, T]) -> T:
        try:
            return asyncio.run(self._watched(verb))
        except (asyncio.CancelledError, P2PModelError):
            # After a signal an error of the verb's own clean-up is not reported.
            if self.stopped_by is None:
                raise
            raise Interrupted(self._interrupted) from None
        finally:
            self._overdue.cancel()
            for number, handler in self._before.items():
                signal.signal(number, handler)

    async def reloading(self, service: Coroutine[Any, Any, None], reload: Reload) -> None:
        """Run `service`, and reload at each SIGHUP."""
        loop, terminals, task = (
            asyncio.get_running_loop(),
            [fd for fd in range(3) if os.isatty(fd)],
            asyncio.current_task(),
        )
        assert task is not None

        def hang_up() -> None:
            if any(map(_is_gone, terminals)):
                self._stop(signal.SIGTERM, task)
            else:
                reload.request()

        loop.add_signal_handler(signal.SIGHUP, hang_up)
        try:
            async with companions() as start:
                start(reload.run())
                await service
        finally:
            loop.remove_signal_handler(signal.SIGHUP)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the process has ended: a late one must not kill it

    async def _watched(self, verb: Coroutine[Any, Any, T]) -> T:
        loop = asyncio.get_running_loop()
        _RUN.set(self)
        task = asyncio.ensure_future(verb)
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._stop, number, task)
        try:
            return await task
        finally:
            # asyncio.run still waits for its threads, without a running loop: from here on handlers end the process.
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
                signal.signal(number, lambda late, _frame: self._at_once(signal.Signals(late)))
            if self.stopped_by is not None:
                self._overdue.cancel()
                self._overdue = self._timer(min(THREADS_END_WITHIN, STOP_WITHIN))
                self._overdue.start()

    def _timer(self, seconds: float) -> threading.Timer:
        timer = threading.Timer(seconds, self._end_now)
        timer.daemon = True
        return timer

    def _stop(self, number: signal.Signals, task: asyncio.Task[Any]) -> None:
        if self.send is not None:
            self.send(number)
            return
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
        if self.stopped_by in self.success:
            os._exit(0)
        os.write(2, f"p2pmodel: {self._interrupted}\n".encode())
        os._exit(Interrupted.exit_code)


_RUN: ContextVar[_SignalRun] = ContextVar("run")


def _is_gone(terminal: int) -> bool:
    try:
        os.tcgetpgrp(terminal)
    except OSError:
        return True
    return False
