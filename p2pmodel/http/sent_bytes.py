"""The body bytes that an application has sent, by snapshot."""

from collections import Counter

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from p2pmodel.http.access_log import SENT


class SentBytes:
    """Counts the body bytes of each response when the response ends."""

    def __init__(self) -> None:
        self._by_snapshot: Counter[tuple[str, str]] = Counter()

    @property
    def bytes(self) -> int:
        """The total."""
        return self._by_snapshot.total()

    def of(self, repo: str, revision: str) -> int:
        """The bytes for requests with this repository and revision in the path."""
        return self._by_snapshot[repo, revision]

    def middleware(self) -> Middleware:
        """The counting middleware."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                return await handler(request)
            finally:
                if sent := request.get(SENT, 0):
                    path = request.match_info
                    self._by_snapshot[path.get("repo", ""), path.get("revision", "")] += sent

        return count
