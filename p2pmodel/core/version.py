"""A number that says whether something changed, for readers that only want the latest state."""

import asyncio


class Version:
    """Grows with each change; whoever waits for it to grow is woken, however often it grew meanwhile."""

    def __init__(self) -> None:
        self.value = 0
        self._grown = asyncio.Event()

    def advance(self) -> None:
        """Something changed."""
        self.value += 1
        self._grown.set()
        self._grown = asyncio.Event()

    async def beyond(self, value: int, *, timeout: float) -> bool:
        """Whether there is a later version than `value` within `timeout` seconds."""
        if self.value == value:
            try:
                async with asyncio.timeout(timeout):
                    await self._grown.wait()
            except TimeoutError:
                return False
        return True
