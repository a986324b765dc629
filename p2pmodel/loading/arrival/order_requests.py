"""Requests to the download for what a load needs next, again and again while the files arrive."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from p2pmodel.core.content.request_window import FileRange
from p2pmodel.loading.arrival.need_order import Gaps, NeedOrder

REQUEST_EVERY = 0.2
"""Seconds between two looks at what is needed next."""
MOST_PLACES = 500
"""Places of one request, the first ones; the daemon takes twice as many."""
Request = Callable[[Sequence[FileRange]], Awaitable[bool]]
"""Asks for these places before others, and returns whether that is possible: the files come from a swarm."""


async def no_requests(_places: Sequence[FileRange]) -> bool:
    """The request of a download that takes none."""
    return False


class OrderRequests:
    """Asks `request` for what `need` says; `gaps` says what has arrived."""

    def __init__(self, need: NeedOrder, gaps: Gaps, request: Request) -> None:
        self.in_swarm = False
        """Whether the files come from a swarm, as of the last request."""
        self._need = need
        self._gaps = gaps
        self._request = request

    async def run(self) -> None:
        """Until cancelled. Each time more of the same places can come first, since others have arrived."""
        while True:
            places = await asyncio.to_thread(self._need.missing, self._gaps)
            if places:
                self.in_swarm = await self._request(places[:MOST_PLACES])
            await asyncio.sleep(REQUEST_EVERY)
