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
    return asyncio.run(_run(verb, interrupted))


async def _run(verb: Coroutine[Any, Any, T], interrupted: str) -> T:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(verb)
    stopped = False

    def stop() -> None:
        nonlocal stopped
        if stopped:
            os._exit(Interrupted.exit_code)
        stopped = True
        task.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        if stopped:
            raise Interrupted(interrupted) from None
        raise
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
