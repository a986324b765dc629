"""A version number that grows with each change, for readers that only need the latest state."""

import asyncio


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
