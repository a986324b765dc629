"""How many bytes of files an application has sent."""

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from p2pmodel.service.access_log import SENT


class Sent:
    """Counts what goes out in answers, once each has ended."""

    def __init__(self) -> None:
        self.bytes = 0

    def middleware(self) -> Middleware:
        """The middleware that counts."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                return await handler(request)
            finally:
                self.bytes += request.get(SENT, 0)

        return count
