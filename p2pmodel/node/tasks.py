"""Structured concurrency as the use cases need it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any

Start = Callable[[Coroutine[Any, Any, None]], None]


@asynccontextmanager
async def companions() -> AsyncIterator[Start]:
    """Tasks that live only as long as the body: its end cancels them, and they have ended when this returns.

    The first failure, in the body or in a companion, ends all of it and is raised itself, not in a group.
    """
    tasks: list[asyncio.Task[None]] = []
    try:
        async with asyncio.TaskGroup() as group:

            def start(work: Coroutine[Any, Any, None]) -> None:
                tasks.append(group.create_task(work))

            yield start
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as failures:
        raise _first(failures) from None


async def together(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all of `works` to their end; the first failure cancels the rest and is raised itself, not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except BaseExceptionGroup as failures:
        raise _first(failures) from None


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
