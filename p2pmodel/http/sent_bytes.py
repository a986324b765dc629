"""How many bytes of files an application has sent."""

from collections import Counter

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from p2pmodel.http.access_log import SENT


class SentBytes:
    """Counts what goes out in answers, once each has ended."""

    def __init__(self) -> None:
        self._by_snapshot: Counter[tuple[str, str]] = Counter()

    @property
    def bytes(self) -> int:
        """All of them."""
        return self._by_snapshot.total()

    def of(self, repo: str, revision: str) -> int:
        """Those that were asked for by that name."""
        return self._by_snapshot[repo, revision]

    def middleware(self) -> Middleware:
        """The middleware that counts."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                return await handler(request)
            finally:
                if sent := request.get(SENT, 0):
                    asked = request.match_info
                    self._by_snapshot[asked.get("repo", ""), asked.get("revision", "")] += sent

        return count
