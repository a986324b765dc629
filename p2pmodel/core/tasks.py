"""Structured concurrency: companion tasks, shared tasks, uncancellable work, and groups that raise a single error."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Iterable
from types import TracebackType
from typing import Any, Generic, TypeVar


class Version:
    """Grows with each change and wakes all waiting readers, once for several changes."""

    def __init__(self) -> None:
        self.value = 0
        self._grown = asyncio.Event()

    def advance(self) -> None:
        """Something changed."""
        self.value += 1
        self._grown.set()
        self._grown = asyncio.Event()

    async def beyond(self, value: int, *, timeout: float | None) -> bool:
        """Wait at most `timeout` seconds (None: no limit) for a later version than `value`; whether there is one."""
        if self.value == value:
            try:
                async with asyncio.timeout(timeout):
                    await self._grown.wait()
            except TimeoutError:
                return False
        return True


K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
Start = Callable[[Coroutine[Any, Any, None]], None]


class companions:  # noqa: N801 - used like a function: `async with companions() as start`
    """Tasks that live as long as the body: its end cancels them and waits for their end.

    The first failure, in the body or in a companion, ends all of them and is raised itself, not in a group. Errors that
    the others raise while they are cancelled are dropped.
    """

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Start:
        await self._group.__aenter__()
        return self._start

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            for task in self._tasks:
                task.cancel()
        # The group lists the body's own failure last, whenever it happened.
        body_first = not (error is None or isinstance(error, asyncio.CancelledError) or any(map(_failed, self._tasks)))
        try:
            await self._group.__aexit__(kind, error, trace)
        except BaseExceptionGroup as failures:
            raise (error if body_first and error else _first(failures)) from None

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(self._group.create_task(work))


class SingleFlight(Generic[K, T]):
    """At most one task per key. A cancelled caller does not cancel the task; `close` does."""

    def __init__(self) -> None:
        self._tasks: dict[K, asyncio.Task[T]] = {}

    async def join(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The outcome of the task of `key`, which is started with `work` unless it already runs."""
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(work())
            task.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Cancel all tasks and wait for their end."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, key: K, task: asyncio.Task[T]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not warn if every caller was cancelled


async def in_thread(work: Callable[[], T], undo: Callable[[T], object]) -> T:
    """Run `work`, which opens something, in a thread. After a cancellation meanwhile its result goes to `undo`, which
    closes it."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        undo(await task)
        raise


async def in_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end, even if the caller is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


async def together(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all of `works` to their end; the first failure cancels the rest and is raised itself, not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except BaseExceptionGroup as failures:
        raise _first(failures) from None


def _failed(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
