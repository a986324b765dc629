"""Asynchronous servers beside a test that is not."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

from tests.support.eventually import PATIENCE

T = TypeVar("T")


@contextmanager
def in_thread(server: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Run `server` on an event loop in a thread of its own for as long as the `with` block lasts."""
    loop = asyncio.new_event_loop()
    ready: Future[T] = Future()
    stop = asyncio.Event()

    async def run() -> None:
        try:
            async with server as value:
                ready.set_result(value)
                await stop.wait()
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    try:
        yield ready.result(PATIENCE)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE)
        loop.close()
