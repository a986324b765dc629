"""Running a verb's coroutine: signals stop it cleanly, once; a second one at once."""

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from p2pmodel.errors import Interrupted

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(verb: Coroutine[Any, Any, T], *, interrupted: str) -> T:
    """Run `verb` to its end. SIGINT or SIGTERM cancels it, and then Interrupted(`interrupted`) is raised."""
    try:
        return asyncio.run(_run(verb))
    except _Stopped:
        raise Interrupted(interrupted) from None


def serve(server: Coroutine[Any, Any, None], *, interrupted: str) -> None:
    """Run `server`, which has no end of its own. SIGTERM, how services are stopped, ends it well: this returns.
    SIGINT is somebody's Ctrl-C: Interrupted(`interrupted`)."""
    try:
        asyncio.run(_run(server))
    except _Stopped as stopped:
        if stopped.by != signal.SIGTERM:
            raise Interrupted(interrupted) from None


class _Stopped(Exception):
    def __init__(self, by: signal.Signals) -> None:
        super().__init__(by)
        self.by = by


async def _run(verb: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(verb)
    stopped: _Stopped | None = None

    def stop(number: signal.Signals) -> None:
        nonlocal stopped
        if stopped:
            os._exit(Interrupted.exit_code)
        stopped = _Stopped(number)
        task.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        if stopped:
            raise stopped from None
        raise
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
