"""A bare HTTP server of one snapshot at the hub's URLs, with ranges, that logs its requests."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from p2pmodel.http.runner import ListeningRunner


@dataclass(slots=True)
class HubFiles:
    """`base` is the endpoint; `asked` has the decoded path of every request, in order, and the response."""

    base: str
    asked: list[tuple[str, int]] = field(default_factory=list)

    @property
    def paths(self) -> set[str]:
        """The distinct requested paths."""
        return {path for path, _ in self.asked}

    @property
    def answers(self) -> set[int]:
        """The distinct statuses that were answered."""
        return {status for _, status in self.asked}


@asynccontextmanager
async def serve_hub_files(repo: str, commit: str, contents: Mapping[str, bytes]) -> AsyncIterator[HubFiles]:
    """Serve `contents` at `/{repo}/resolve/{commit}/{path}`; everything else is 404."""
    prefix = f"/{repo}/resolve/{commit}/"

    async def answer(request: web.Request) -> web.Response:
        body = contents.get(request.path.removeprefix(prefix)) if request.path.startswith(prefix) else None
        response = web.Response(status=404) if body is None else _range(request, body)
        server.asked.append((request.path, response.status))
        return response

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = ListeningRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await runner.listen(host="127.0.0.1", port=0)
        host, port = runner.addresses[0][:2]
        server = HubFiles(f"http://{host}:{port}")
        yield server
    finally:
        await runner.cleanup()


def _range(request: web.Request, body: bytes) -> web.Response:
    asked = request.http_range
    if asked.start is None and asked.stop is None:
        return web.Response(body=body, headers={"Accept-Ranges": "bytes"})
    start = asked.start or 0
    stop = min(asked.stop or len(body), len(body))
    headers = {"Content-Range": f"bytes {start}-{stop - 1}/{len(body)}", "Accept-Ranges": "bytes"}
    return web.Response(status=206, body=body[start:stop], headers=headers)
